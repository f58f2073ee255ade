"""The command line, `cc-executor`: the runs of a notebook from a terminal. Thin; everything is decided below.

Standard output carries what was asked for (with `--json` one JSON value), standard error what is said about it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from typing import Final

USAGE: Final = 2  # also what the parser of the options exits with
INTERRUPTED: Final = 130  # as a shell says of what Ctrl-C has ended (128 + SIGINT)
COMPLETION: Final = "_CC_EXECUTOR_COMPLETE"  # set by a shell's script of `completion` when it asks


def main() -> None:
    """Run the command line and exit with its code."""
    if os.name != "posix":  # said before the imports, which need POSIX themselves
        print("cc_executor stops and pauses process trees by POSIX signals, which Windows lacks. Use WSL.", file=sys.stderr)
        sys.exit(USAGE)
    from cc_executor.cli import signals, streams

    streams.make_ready()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signals.leave)  # until the command is loaded (`group`)
    logging.getLogger("cc_executor.runtime.notices").addHandler(logging.NullHandler())  # the terminal is told of them in words of its own
    from cc_executor.cli.commands import app
    from cc_executor.errors import CCExecutorError

    if COMPLETION in os.environ:  # a shell asks what could come next
        from cc_executor.cli.completion import prepare  # here: every other command does without it

        prepare()
    try:
        try:
            app(prog_name="cc-executor")
        finally:
            sys.stdout.flush()  # what is still buffered fails here, where it can be told
    except KeyboardInterrupt:  # before the command was there to answer it
        sys.exit(INTERRUPTED)
    except CCExecutorError as error:
        from cc_executor.model.ansi import clean  # here: nothing else of this module needs its patterns

        print(clean(str(error)), file=sys.stderr)  # it may name what an agent has named
        sys.exit(USAGE)
    except OSError as error:
        streams.lead_nowhere(sys.stdout)
        if isinstance(error, BrokenPipeError):  # as `app` does where the reader is gone
            sys.exit(1)
        if isinstance(error, FileNotFoundError) and error.filename is None:  # of getcwd(3)
            print("The current folder does not exist any more. Change to another.", file=sys.stderr)
            sys.exit(USAGE)
        if not streams.is_about_output(error):
            raise
        with contextlib.suppress(OSError):
            print(streams.sentence(error), file=sys.stderr)
        sys.exit(streams.OUTPUT_LOST)
