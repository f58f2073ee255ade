"""Start of a shim: ``python -I -S …/cc_executor/shim/__main__.py`` with the spec on standard input."""

import os.path
import sys


def run() -> None:
    """Find the package beside this file and start."""
    # Appended, so that nothing beside the package can stand in for the standard library; `-I` keeps the working folder out.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from cc_executor.shim.start import main

    main()


if __name__ == "__main__":
    run()
