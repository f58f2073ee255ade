"""A flood of lines in a real JupyterLab: how long the page could not draw, how long after the end it was done, what the notebook holds."""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

from benchmarks import xterm
from benchmarks.table import Bench, Row, percentile

COUNT = """
import os, sys, time
total, seconds = int(sys.argv[1]), float(sys.argv[2])
begun, step = time.monotonic(), max(1, int(total / seconds / 50))
for number in range(0, total, step):
    text = "".join(f"line {each} of a flood of numbered lines\\n" for each in range(number, min(total, number + step)))
    show(text)
    time.sleep(max(0.0, begun + number / total * seconds - time.monotonic()))  # the pace of the flood
"""
CELLS = {
    "cc_executor": "%%cc_execute --agent shell --shell bash\n{python} count.py {total} {seconds}",
    "print": "import sys\nsys.argv = ['', '{total}', '{seconds}']\nshow = lambda text: [print(line) for line in text.splitlines()]\n"
    + COUNT,
    "Output widget": "import sys, ipywidgets\nsys.argv = ['', '{total}', '{seconds}']\nout = ipywidgets.Output()\ndisplay(out)\n"
    "show = out.append_stdout\n" + COUNT,
}
WATCH = """() => {
    window.gaps = [];
    let last = performance.now();
    const frame = now => { window.gaps.push(now - last); last = now; requestAnimationFrame(frame); };
    requestAnimationFrame(frame);
}"""


@dataclass
class Seen:
    """One contestant, once."""

    longest: float  # ms between two frames
    p99: float
    after: float  # seconds from the last line's writing to its showing; infinite: not before it was given up
    saved: int  # bytes of the notebook


def frames(bench: Bench) -> list[Row]:
    """One row for each way to show lines."""
    from playwright.sync_api import Error as BrowserError
    from playwright.sync_api import sync_playwright

    from support.environments import chromium
    from support.lab import CHROMIUM_ARGUMENTS, running_lab

    total = bench.scale.lines
    seconds = max(2.0, total / 5000)  # 100,000 lines in 20 s
    if total > 100_000:
        seconds = total / 25_000
    (bench.folder / "count.py").write_text("import os\nshow = lambda text: os.write(1, text.encode())\n" + COUNT, encoding="utf-8")
    cells = dict(CELLS)
    try:
        cells["xterm.js"] = xterm.cell() + COUNT
    except (OSError, ValueError) as problem:
        bench.say(f"without xterm.js: {problem}")
    if bench.scale.name == "quick":
        del cells["Output widget"]  # it is not done in any time that a quick look takes
    found: dict[str, list[Seen]] = {name: [] for name in cells}
    with sync_playwright() as playwright, running_lab(bench.folder / "lab") as lab:
        browser = playwright.chromium.launch(executable_path=str(chromium()), args=list(CHROMIUM_ARGUMENTS))
        for turn in range(1 if bench.scale.name != "usual" else 2):
            for name, cell in cells.items():
                text = cell.format(python=sys.executable, total=total, seconds=seconds) if name == "cc_executor" else cell
                text = text.replace("{total}", str(total)).replace("{seconds}", str(seconds))
                try:
                    found[name].append(_shown(bench, lab, browser, f"flood{turn}{len(name)}.ipynb", text, seconds=seconds))
                except (AssertionError, BrowserError) as problem:  # the second: the page answers nobody for half a minute
                    bench.say(f"{name}: {str(problem)[:200]}")
        browser.close()
    rows: list[Row] = []
    for name, rounds in found.items():
        words = f"not done {bench.scale.patience:.0f} s after the last line was written"
        if rounds:
            after = statistics.median(each.after for each in rounds)
            words = (
                f"longest gap between two frames {max(each.longest for each in rounds):,.0f} ms, p99 {statistics.median(each.p99 for each in rounds):.0f} ms; "
                f"the last line {f'{after:.1f} s after it was written' if after < bench.scale.patience else f'not within {bench.scale.patience:.0f} s'}; "
                f"{rounds[-1].saved:,} bytes of notebook"
            )
        rows.append(
            Row(f"{total:,} lines in {seconds:.0f} s in JupyterLab: {name}", words, samples={"longest": [each.longest for each in rounds]})
        )
    return rows


def _shown(bench: Bench, lab: Any, browser: Any, notebook: str, cell: str, *, seconds: float) -> Seen:
    from support.environments import IPYKERNEL7
    from support.lab import NotebookPage

    lab.write(
        notebook,
        f"%load_ext cc_executor\nimport os\nos.chdir({str(bench.folder)!r})",
        "%%cc_execute --agent shell\ntrue",
        cell,
        kernel=IPYKERNEL7.name,
    )
    page = NotebookPage(lab, browser, notebook)
    try:
        page.wait_for_kernel()
        for number in (0, 1):
            page.run(number)
            page.wait_done(number)
        page.page.evaluate(WATCH)
        began = time.monotonic()
        page.run(2)
        page.wait_done(2, within=seconds + bench.scale.patience)
        after = bench.scale.patience
        last = f"line {bench.scale.lines - 1} of"
        while time.monotonic() < began + seconds + bench.scale.patience:
            if page.output(2).evaluate("(node, text) => node.textContent.includes(text)", last):
                after = max(0.0, time.monotonic() - began - seconds)
                break
            time.sleep(0.2)  # the page has no event for it, and to look more often would hold up its drawing
        gaps: list[float] = page.page.evaluate("() => window.gaps")
        page.save()
        return Seen(max(gaps), percentile(gaps, 0.99), after, (lab.root / notebook).stat().st_size)
    finally:
        page.close()
        lab.end_kernels()
