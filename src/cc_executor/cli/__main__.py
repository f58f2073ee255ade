"""``python -m cc_executor.cli``: the same as the command `cc-executor`."""

from __future__ import annotations

from cc_executor.cli import main

if __name__ == "__main__":
    main()
