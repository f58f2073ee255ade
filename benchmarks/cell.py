"""What a cell costs, side by side in one run: 5 MB of output through `%%cc_execute` and `%%bash`, and the load of the extension.

    .venvs/dev/bin/python benchmarks/cell.py [ROUNDS]

Prints a Markdown table. On a shared machine only the ratios and the counts mean something.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.environments import IPYKERNEL7
from support.kernel import Answer, Kernel, running_kernel

SCRIPT = "head -c 3750000 /dev/urandom | base64 -w 100; date +%s.%N > produced"
CELLS = {
    "%%cc_execute": f"%%cc_execute --agent shell --shell bash\n{SCRIPT}",
    "%%bash": f"%%bash\n{SCRIPT}",
}
LOADS = {"%load_ext cc_executor": "ip.run_line_magic('load_ext', 'cc_executor')", "import pydantic": "import pydantic.main"}


class Row(NamedTuple):
    """One run of one cell."""

    after: float  # seconds from the producer's end to the cell's
    messages: int
    kept: int  # bytes in the notebook


def bytes_in_notebook(answer: Answer) -> int:
    """What the cell's outputs take in the saved file."""
    return len(answer.stream) + len(json.dumps(answer.displays))


def measured(kernel: Kernel, cell: str) -> Row:
    """Run one cell."""
    answer = kernel.run(cell, within=120)
    ended = time.time()
    if answer.status != "ok":
        raise SystemExit(answer.traceback)
    return Row(ended - float(Path("produced").read_text()), len(answer.messages), bytes_in_notebook(answer))


def load_cost(statement: str) -> float:
    """Milliseconds of CPU in a fresh kernel that has run a line magic before."""
    with running_kernel(IPYKERNEL7.name) as kernel:
        kernel.run("import time\nip = get_ipython()\nip.run_line_magic('pwd', '')\nip.run_line_magic('load_ext', 'storemagic')")
        return float(
            kernel.value(
                f"(lambda t: ({statement}, (time.process_time() - t) * 1000)[1])(time.process_time())".replace(
                    "import pydantic.main", "__import__('pydantic.main')"
                )
            )
        )


def main() -> None:
    """Measure, and print the tables."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory(prefix="cc-bench-") as folder:
        os.environ |= {"JUPYTER_PATH": f"{folder}/jupyter", "CC_EXECUTOR_STATE": f"{folder}/state"}
        IPYKERNEL7.register(Path(folder) / "jupyter")
        os.chdir(folder)
        found: dict[str, list[Row]] = {name: [] for name in CELLS}
        with running_kernel(IPYKERNEL7.name) as kernel:
            kernel.run("%load_ext cc_executor")
            for _ in range(rounds):
                for name, cell in CELLS.items():
                    found[name].append(measured(kernel, cell))
        print("| 5 MB of output | seconds after the producer | messages | bytes in the notebook |\n| --- | --- | --- | --- |")
        for name, rows in found.items():
            middle: list[Any] = [statistics.median(column) for column in zip(*rows, strict=True)]
            print(f"| `{name}` | {middle[0]:.2f} | {middle[1]:.0f} | {middle[2]:,.0f} |")
        loads = {name: statistics.median(load_cost(statement) for _ in range(rounds)) for name, statement in LOADS.items()}
        print("\n| in a fresh kernel | ms of CPU |\n| --- | --- |")
        for name, milliseconds in loads.items():
            print(f"| `{name}` | {milliseconds:.1f} |")


if __name__ == "__main__":
    main()
