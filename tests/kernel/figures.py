"""matplotlib beside a run. Not part of every test run, for matplotlib and what it needs are 40 MB of wheels: `make matrix` runs it where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cc_executor.model.receipt import RECEIPT_MIME
from kernel.cells import WAIT, make_gate, shell_cell, wait_for_pid
from support.kernel import Answer, Kernel
from support.looks import eventually

PNG: Final = "image/png"

# A task that leaves a figure open in the midst of the run, and a slider whose messages end with matplotlib's own flush of open figures.
BESIDE: Final = """
import asyncio, pathlib, ipywidgets
slider = ipywidgets.IntSlider()
slider.observe(lambda change: pathlib.Path('size').write_text(str(change['new'])), 'value')
async def draw():
    await begun.wait()
    plt.plot([3, 1, 2])
    pathlib.Path('drawn').touch()
begun = asyncio.Event()
task = asyncio.ensure_future(draw())
slider.comm.comm_id
"""


def kinds(answer: Answer) -> list[str]:
    assert answer.status == "ok", answer.traceback
    return [next(mime for mime in (RECEIPT_MIME, PNG, "text/plain") if mime in display) for display in answer.displays]


def test_figures_of_neighbouring_cells_are_theirs(kernel: Kernel) -> None:
    kernel.run("%matplotlib inline\nimport matplotlib.pyplot as plt")
    queued = [kernel.send(code) for code in ("plt.plot([1, 2]); None", shell_cell("echo between", "-o r"), "plt.plot([2, 1]); None")]
    assert [kinds(kernel.wait(cell)) for cell in queued] == [[PNG], [RECEIPT_MIME], [PNG]]


def test_a_figure_that_a_task_draws_during_a_run_costs_the_run_nothing(kernel: Kernel, tmp_path: Path) -> None:
    gate = make_gate(tmp_path)
    kernel.run("%matplotlib inline\nimport matplotlib.pyplot as plt")
    slider = kernel.run(BESIDE).value
    assert slider is not None
    kernel.run("asyncio.get_running_loop().call_later(0.05, begun.set)")
    cell = kernel.send(shell_cell(WAIT, "-o r"))
    wait_for_pid(tmp_path)
    eventually((tmp_path / "drawn").exists, within=60, what="the task has drawn")
    kernel.tell(slider.strip("'"), {"method": "update", "state": {"value": 7}})
    eventually((tmp_path / "size").exists, within=60, what="the slider answers during the run")
    gate.write_text("through\n")
    answer = kernel.wait(cell)
    assert kinds(answer).count(RECEIPT_MIME) == 1
    assert set(kinds(answer)) <= {RECEIPT_MIME, PNG}
    assert kernel.value("r.text.split()") == "['started', 'through', 'ended']"
    assert kinds(kernel.run("plt.close('all'); plt.plot([1, 2]); None")) == [PNG]
