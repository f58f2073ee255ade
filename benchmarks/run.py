"""Measures, prints the table in Markdown and leaves it, with every single figure, in ``benchmarks/results.json``.

    python benchmarks/run.py            a quarter of an hour
    python benchmarks/run.py --quick    under three minutes
    python benchmarks/run.py --long     with 10 GB and a million lines
    python benchmarks/run.py --only drain --only memory

On a shared machine only ratios, counts and CPU seconds mean something. Nothing of it is a test.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import lag, page, suites
from benchmarks.machine import machine
from benchmarks.place import HERE, scratch
from benchmarks.table import LONG, QUICK, USUAL, Bench, Row, Suite, as_json, markdown

SUITES: dict[str, Suite] = {
    "overhead": suites.overhead,
    "first-text": suites.first_text,
    "drain": suites.drain,
    "decoding": suites.decoding,
    "lag": lag.loop_lag,
    "held-up": suites.held_up,
    "memory": suites.memory,
    "control": suites.control,
    "talk": suites.talk,
    "loading": suites.loading,
    "cell": suites.flood_in_cell,
    "page": page.frames,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure cc_executor and its peers side by side.")
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument("--quick", dest="scale", action="store_const", const=QUICK, default=USUAL, help="under three minutes")
    scale.add_argument("--long", dest="scale", action="store_const", const=LONG, help="10 GB and a million lines")
    parser.add_argument("--only", action="append", choices=list(SUITES), help="one suite; may be given several times")
    parser.add_argument("--results", type=Path, default=HERE / "results.json", help="where every figure goes")
    chosen = parser.parse_args()
    about = machine()
    rows: list[Row] = []
    for name in chosen.only or list(SUITES):
        began = time.monotonic()
        print(f"… {name}", file=sys.stderr, flush=True)
        with scratch() as folder:
            rows += SUITES[name](Bench(chosen.scale, folder))
        print(f"  {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        chosen.results.write_text(json.dumps(as_json(about, chosen.scale, rows), indent=1), encoding="utf-8")
    print(markdown(about, chosen.scale, rows))


if __name__ == "__main__":
    main()
