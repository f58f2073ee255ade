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


def main() -> None:
    """Run the command line and exit with its code."""
    if os.name != "posix":  # said before the imports, which need POSIX themselves
        print("cc_executor stops and pauses process trees by POSIX signals, which Windows lacks. Use WSL.", file=sys.stderr)
        sys.exit(USAGE)
    from cc_executor.cli import streams

    streams.make_ready()
    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_usual:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is there yet that would have to be cleaned up, but a trace of our imports
    logging.getLogger("cc_executor.runtime.notices").addHandler(logging.NullHandler())  # the terminal is told of them in words of its own
    from cc_executor.cli.codes import INTERRUPTED
    from cc_executor.cli.commands import app
    from cc_executor.cli.completion import VARIABLE, prepare
    from cc_executor.errors import CCExecutorError
    from cc_executor.model.ansi import clean

    if is_usual:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if VARIABLE in os.environ:  # a shell asks what could come next
        prepare()
    try:
        try:
            app(prog_name="cc-executor")
        finally:
            sys.stdout.flush()  # what is still buffered fails here, where it can be told
    except KeyboardInterrupt:  # before the command was there to answer it
        sys.exit(INTERRUPTED)
    except CCExecutorError as error:
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
