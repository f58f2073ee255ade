"""`%config CCExecutor.spare`: from the second cell on, the agent has been started already."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace
from opentelemetry import trace

from cc_executor.kernel.cell import _keep_spare
from cc_executor.kernel.config import CCExecutor
from cc_executor.kernel.order import order_of
from cc_executor.rehearsal.loopback import API_KEY
from cc_executor.rehearsal.server import ServedRehearsal, serving
from cc_executor.runtime import spare
from cc_executor.store.home import StateHome
from support.kernel import Kernel
from support.looks import eventually
from support.shims import marked
from support.spans import recorded

pytestmark = pytest.mark.usefixtures("claude_cli")

SET: str = "import os\nos.environ.update({values!r})\n%config CCExecutor.spare = True"
MARKS = "[each.mark for each in __import__('cc_executor.runtime.spare').runtime.spare._kept]"
PLAN = "__import__('cc_executor.runtime.plan').runtime.plan.Plan.of(__import__('cc_executor.kernel.cell').kernel.cell.home_of(None).folder({name}.receipt.run_id))"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedRehearsal]:
    with serving("hello", cwd=str(tmp_path)) as api:
        yield api


def waiting(kernel: Kernel) -> str:
    """The mark of the agent that waits in this kernel."""
    marks = eventually(lambda: eval(kernel.value(MARKS)), within=60, what="an agent waits")  # noqa: S307 - the repr of a list of texts
    (mark,) = marks
    return mark


@pytest.mark.row("faults", "kernel with an agent that waits is killed", "nothing of the agent is left")
def test_the_second_cell_begins_with_an_agent_that_waits_and_none_outlives_the_kernel(
    own_kernel: Kernel, tmp_path: Path, served: ServedRehearsal
) -> None:
    home = tmp_path / "user"
    home.mkdir()
    values = {"HOME": str(home), "ANTHROPIC_BASE_URL": served.url, "ANTHROPIC_API_KEY": API_KEY}
    assert own_kernel.run(SET.format(values=values)).status == "ok"
    assert own_kernel.run("%%cc_execute --out first\nSay hello.").status == "ok"
    mark = waiting(own_kernel)
    assert own_kernel.run("%%cc_execute --out second\nSay hello once more.").status == "ok"
    assert own_kernel.value(f"{PLAN.format(name='first')}.mark") == "''"
    assert own_kernel.value(f"{PLAN.format(name='second')}.mark") == repr(mark)
    assert own_kernel.value("second.receipt.outcome.kind.value, second.text == first.text") == "('ok', True)"
    other = waiting(own_kernel)
    assert other != mark
    assert marked(other)
    os.kill(own_kernel.pid, signal.SIGKILL)
    eventually(lambda: not marked(mark) and not marked(other), within=30, what="no agent waits any more")


@pytest.mark.parametrize("how", ["%config CCExecutor.spare = False", "%unload_ext cc_executor"])
def test_one_that_is_not_wanted_any_more_ends(own_kernel: Kernel, tmp_path: Path, served: ServedRehearsal, how: str) -> None:
    values = {"HOME": str(tmp_path), "ANTHROPIC_BASE_URL": served.url, "ANTHROPIC_API_KEY": API_KEY}
    assert own_kernel.run(SET.format(values=values)).status == "ok"
    assert own_kernel.run("%%cc_execute\nSay hello.").status == "ok"
    mark = waiting(own_kernel)
    assert own_kernel.run(how).status == "ok"
    eventually(lambda: not marked(mark), within=30, what="no agent waits any more")


def test_without_the_setting_none_waits(kernel: Kernel) -> None:
    assert kernel.run("%%cc_execute --rehearse hello\nSay hello.").status == "ok"
    assert kernel.value("'cc_executor.runtime.spare' in __import__('sys').modules") == "False"


def kept_for(home: StateHome, folder: Path, line: str = "") -> bool:
    """Whether a cell with these options would leave an agent waiting; none is left."""
    settings = CCExecutor(environ={"CC_EXECUTOR_SPARE": "true"})
    order = order_of(line, "Say hello.\n", settings=settings, namespace={})
    order = replace(order, request=order.request.model_copy(update={"cwd": str(folder)}))
    _keep_spare(SimpleNamespace(configurables=[settings]), order, home)
    for thread in [thread for thread in threading.enumerate() if thread.name == "cc_executor spare"]:
        thread.join()
    kept = spare.take()
    if kept is not None:
        kept.end()
    return kept is not None


def test_none_waits_that_no_cell_could_take(home: StateHome, tmp_path: Path) -> None:
    assert kept_for(home, tmp_path)
    assert not kept_for(home, tmp_path, "--max-cost-per-day 5")
    with recorded():
        with trace.get_tracer("a notebook").start_as_current_span("a cell"):
            assert not kept_for(home, tmp_path)
        assert kept_for(home, tmp_path), "spans are wanted, and none goes on"
