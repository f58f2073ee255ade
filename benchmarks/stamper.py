"""Writes lines that begin with the time at which they were written: ``python stamper.py BYTES BYTES_PER_SECOND`` (0: as fast as it can).

The clock is the machine's (CLOCK_MONOTONIC), which all processes share.
"""

import os
import sys
import time

MARK = b"<"
CLOSING = ord(">")
STAMP = b"<%017.6f>"
WIDTH = 19
FILLER = b" the quick brown fox jumps over the lazy dog and then sleeps until the next day\n"
LINE = WIDTH + len(FILLER)
TURN = 0.01  # seconds


def main() -> None:
    """Write."""
    size, pace = int(sys.argv[1]), float(sys.argv[2])
    block = max(1, int(pace * TURN) // LINE) if pace else 640
    began, written = time.monotonic(), 0
    while written < size:
        line = STAMP % time.monotonic() + FILLER
        data = line * block
        os.write(1, data)
        written += len(data)
        if pace:
            time.sleep(max(0.0, began + written / pace - time.monotonic()))  # the pace that was asked for


if __name__ == "__main__":
    main()
