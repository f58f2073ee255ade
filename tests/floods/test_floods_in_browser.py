"""A flood in front of a person: the page answers, and a click on Cancel is obeyed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser

from cc_executor.shim import records
from floods.sizes import BUDGET, LINES
from support.environments import KERNELS
from support.lab import NotebookPage, running_lab
from support.leaks import await_none
from support.looks import eventually
from support.runs import run_folders

pytestmark = pytest.mark.timeout(BUDGET + 120)

# 25,000 lines a second: no faster than a person's terminal scrolls, and for as long as nobody cancels (with a bound, should nobody ever).
COUNTING: Final = r"""
import os, time
number, began = 0, time.monotonic()
while number < 5_000_000:
    os.write(1, b"".join(b"line %d of a flood of numbered lines\n" % each for each in range(number, number + 500)))
    number += 500
    time.sleep(max(0.0, began + number / 25_000 - time.monotonic()))
"""
# The longest time in which the page could not have drawn anything, and one from a click to its handler.
WATCH: Final = """() => {
    window.gaps = [];
    let last = performance.now();
    const frame = now => { window.gaps.push(now - last); last = now; requestAnimationFrame(frame); };
    requestAnimationFrame(frame);
}"""


@pytest.mark.row(
    "floods",
    "a million lines with the page open (CI: 100,000)",
    "frames go on being drawn, the newest line is there, a click on Cancel is obeyed (promised: within 1 s)",
)
def test_a_page_in_a_flood_answers_and_cancel_is_obeyed(
    browser: Browser, kernelspecs: Path, tmp_path: Path, state_folder: Path, saw: Callable[[str], None]
) -> None:
    (tmp_path / "count.py").write_text(COUNTING, encoding="utf-8")
    with running_lab(tmp_path / "lab") as lab:
        cell = f"%%cc_execute --agent shell --shell bash -o r\npython3 -u {tmp_path / 'count.py'}"
        lab.write("flood.ipynb", "%load_ext cc_executor", cell, kernel=KERNELS[0].name)
        page = NotebookPage(lab, browser, "flood.ipynb")
        page.wait_for_kernel()
        page.run(0)
        page.wait_done(0)
        page.page.evaluate(WATCH)
        page.run(1)
        view = page.output(1)
        view.get_by_role("button", name="Cancel").wait_for(timeout=90_000)
        folder = eventually(lambda: run_folders(state_folder), within=BUDGET, what="the run begins")[-1]

        def lines() -> int:
            return (folder / records.STDOUT).stat().st_size // 36

        eventually(lambda: lines() >= LINES, within=BUDGET, what=f"{LINES:,} lines are written")
        newest = lines() - 50_000
        eventually(lambda: newest_shown(page) >= newest, within=BUDGET, what="the page shows what is new")
        before: float = page.page.evaluate("() => Date.now() / 1000")
        view.get_by_role("button", name="Cancel").click()
        asked = eventually(lambda: stop_requested(folder), within=30, what="Cancel is obeyed")
        assert asked["by"] == "view"
        assert not await_none([tmp_path], budget=5)
        page.wait_done(1, within=BUDGET)
        view.get_by_text("cancelled").first.wait_for(timeout=30_000)
        gaps: list[float] = page.page.evaluate("() => window.gaps")
        ended = json.loads((folder / records.EXIT).read_bytes())["ended_at"]
        saw(
            f"obeyed {asked['at'] - before:.2f} s and over {ended - before:.2f} s after the click; {len(gaps)} frames, "
            f"the longest gap {max(gaps):.0f} ms; {lines():,} lines"
        )
        assert len(gaps) > 20
        page.close()


def newest_shown(page: NotebookPage) -> int:
    """The highest number on the page."""
    found: int = page.output(1).evaluate(
        "node => Math.max(-1, ...[...node.innerText.matchAll(/line (\\d+) of a flood/g)].map(match => Number(match[1])))"
    )
    return found


def stop_requested(folder: Path) -> dict[str, Any] | None:
    found = [json.loads(line) for line in (folder / records.CONTROL).read_text("utf-8").splitlines()]
    return next((record for record in found if record["kind"] == "stop_requested"), None)
