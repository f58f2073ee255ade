"""The process that runs a task list for a server, or for a terminal that did not wait: `python -m cc_executor.listrunner LIST`, see `runtime.detached`.

It ends with the list. Killed, it takes no run along: whoever runs the list next adopts them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time

from cc_executor.errors import CCExecutorError
from cc_executor.listpage import keep_end
from cc_executor.runtime.telemetry import configure
from cc_executor.store.home import StateHome, state_path
from cc_executor.store.tasklists import ListHome
from cc_executor.tasks import carry_on


def main() -> int:
    """Run the list that the command line names, with the environment that standard input says."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
    os.environ.update(json.loads(sys.stdin.buffer.read()))
    time.tzset()
    configure(os.environ)
    home = StateHome(state_path(os.environ))
    try:
        folder = ListHome(home).find(sys.argv[1])
        state = asyncio.run(carry_on(folder, home=home, environ=dict(os.environ)))
        keep_end(folder, state, home)  # for a notebook whose kernel is gone
    except CCExecutorError as error:
        logging.getLogger(__name__).error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
