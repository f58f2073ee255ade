"""Writes so many bytes of 100-byte lines to stdout and says in a file how long it took and how long it was held up at most.

``python -I -S producer.py BYTES REPORT [BYTES_PER_SECOND [FIFO]]``; it begins when somebody opens FIFO for writing.
"""

import json
import os
import sys
import time

LINE = b"%08d the quick brown fox jumps over the lazy dog and then sleeps until the next morning and so on......\n"
BLOCK = 64 * 1024


def main() -> None:
    size, report = int(sys.argv[1]), sys.argv[2]
    pace = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    block = b"".join(LINE % number for number in range(BLOCK // 100))
    step = int(pace / 50) if pace else len(block)
    block = (block * (step // len(block) + 1))[:step]
    if len(sys.argv) > 4:
        os.close(os.open(sys.argv[4], os.O_RDONLY))
    began, longest, written = time.monotonic(), 0.0, 0
    while written < size:
        before = time.monotonic()
        written += os.write(1, block[: size - written])
        now = time.monotonic()
        longest = max(longest, now - before)
        if pace:
            time.sleep(max(0.0, began + written / pace - now))  # the pace that was asked for
    seconds = time.monotonic() - began
    told = {"seconds": seconds, "longest": longest, "cpu": time.process_time(), "bytes": written}
    with open(report + ".new", "w") as file:
        json.dump(told, file)
    os.rename(report + ".new", report)  # noqa: PTH104 - pathlib costs start-up time, which others are charged with


main()
