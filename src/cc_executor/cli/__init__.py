"""The command line, `cc-executor`: the runs of a notebook from a terminal. Thin; everything is decided below.

Standard output carries what was asked for (with `--json` one JSON value), standard error what is said about it.
"""

from __future__ import annotations

import os
import sys
from typing import Final

USAGE: Final = 2  # also what the parser of the options exits with


def main() -> None:
    """Run the command line and exit with its code."""
    if os.name != "posix":  # said before the imports, which need POSIX themselves
        print("cc_executor stops and pauses process trees by POSIX signals, which Windows lacks. Use WSL.", file=sys.stderr)
        sys.exit(USAGE)
    from cc_executor.cli.commands import app
    from cc_executor.cli.completion import VARIABLE, prepare
    from cc_executor.errors import CCExecutorError

    if VARIABLE in os.environ:  # a shell asks what could come next
        prepare()
    try:
        app(prog_name="cc-executor")
    except CCExecutorError as error:
        print(error, file=sys.stderr)
        sys.exit(USAGE)
