"""A usage limit met in a real kernel with the real CLI: what a cell and a list show while they wait, and what a restart does to it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cc_executor.rehearsal.scripts import Block, Fault, Script, Turn, Usage
from cc_executor.rehearsal.server import ServedRehearsal, serving
from cc_executor.runtime.bounds import with_kept_cap
from cc_executor.store.home import StateHome
from cc_executor.store.tasklists import ListHome
from cli.test_cli import cli
from kernel.cells import NEWEST_LINE
from support.kernel import Answer, Kernel
from support.runs import run_folders, wait_for

pytestmark = pytest.mark.usefixtures("claude_cli")

Serve = Callable[[float], ServedRehearsal]


def limited(resets_at: float) -> Script:
    """A rehearsal that is refused once for a usage limit, which ends at `resets_at`, in seconds since 1970."""
    headers = {
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-reset": str(int(resets_at)),
        "anthropic-ratelimit-unified-representative-claim": "five_hour",
    }
    fault = Fault(kind="status", at="headers", status=429, error="rate_limit_error", message="usage limit", times=1)
    return Script(name="limited", turns=(Turn(blocks=(Block(text="gone on"),), headers=headers, fault=fault),))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """An API on loopback that refuses each session's first request for a usage limit."""
    with ExitStack() as stack:

        def start(resets_at: float) -> ServedRehearsal:
            return stack.enter_context(serving(limited(resets_at), cwd=str(tmp_path)))

        yield start


def log_in(kernel: Kernel, served: ServedRehearsal) -> None:
    kernel.run(
        f"import os\nos.environ |= {{'ANTHROPIC_BASE_URL': {served.url!r}, 'CLAUDE_CODE_OAUTH_TOKEN': 'sk-ant-oat01-nobody', "
        "'CLAUDE_CODE_MAX_RETRIES': '0'}"
    )


def asked(served: ServedRehearsal) -> int:
    return sum(request.kind == "main" for request in served.requests)


def texts(answer: Answer) -> str:
    return "\n".join(str(data.get("text/plain", "")) for data in answer.displays)


def waits(answer: Answer) -> bool:
    return ": usage limit until" in texts(answer)


CELL = "%%cc_execute --on-limit wait -o result\nWork."


@NEWEST_LINE
def test_a_cell_waits_for_the_end_of_a_usage_limit_and_goes_on(kernel: Kernel, serve: Serve) -> None:
    served = serve(time.time() + 4)
    log_in(kernel, served)
    sent = kernel.send(CELL)
    answer = kernel.wait(sent, until=waits)
    assert "Waits 0:0" in texts(answer)
    answer = kernel.wait(sent, answer=answer)
    assert (answer.status, asked(served)) == ("ok", 2), answer.traceback
    assert kernel.value("result.text") == "'gone on'"
    assert "Waited: usage limit until" in texts(answer)
    assert "model_id" not in str([data for data in answer.displays if "Waited" in str(data)])


def test_a_cell_that_waits_is_ended_by_an_interrupt_and_keeps_what_it_has(kernel: Kernel, serve: Serve) -> None:
    served = serve(time.time() + 600)
    log_in(kernel, served)
    sent = kernel.send(CELL)
    answer = kernel.wait(sent, until=waits)
    kernel.interrupt()
    answer = kernel.wait(sent, within=60, answer=answer)
    assert "the waiting was ended; the receipt of run" in answer.evalue + answer.traceback
    assert kernel.value("result.status") == "'usage_limited'"
    assert asked(served) == 1


def test_a_button_goes_on_now(kernel: Kernel, serve: Serve) -> None:
    served = serve(time.time() + 600)
    log_in(kernel, served)
    sent = kernel.send(CELL)
    answer = kernel.wait(sent, until=waits)
    opened: list[dict[str, Any]] = [message["content"] for message in answer.messages if message["msg_type"] == "comm_open"]
    (go,) = [content["comm_id"] for content in opened if content["data"]["state"].get("description") == "Go on now"]
    kernel.tell(go, {"method": "custom", "content": {"event": "click"}})
    answer = kernel.wait(sent, within=60, answer=answer)
    assert (answer.status, asked(served)) == ("ok", 2), answer.traceback


LIST = "%%cc_tasks -o done --on-limit wait\ntasks:\n  - {id: a, prompt: Work.}\n  - {id: b, run: cat $CC_NEEDS/a.txt, needs: a}\n"


def test_a_list_that_waits_survives_its_kernel_and_goes_on(own_kernel: Kernel, kernel_name: str, serve: Serve, state_folder: Path) -> None:
    is_killed = kernel_name == "ipykernel7"  # the other line's is restarted, which stops the list first
    resets_at = int(time.time()) + 10
    served = serve(resets_at)
    log_in(own_kernel, served)
    own_kernel.send(LIST)

    def until() -> float | None:
        folder = next(ListHome(StateHome(state_folder)).folders(), None)
        return folder.state().task("a").until if folder is not None else None

    wait_for(until, within=60)
    if is_killed:
        os.kill(own_kernel.pid, signal.SIGKILL)
    own_kernel.restart()
    own_kernel.run("%load_ext cc_executor")
    log_in(own_kernel, served)
    sent = own_kernel.send(LIST)
    answer = own_kernel.wait(sent, within=60)
    assert (answer.status, asked(served)) == ("ok", 2), answer.traceback
    assert time.time() > resets_at
    assert own_kernel.value("done['b']") == "'gone on'"


@NEWEST_LINE
def test_an_interrupt_while_a_run_is_sealed_keeps_another_attempt_from_being_made(
    kernel: Kernel, tmp_path: Path, state_folder: Path
) -> None:
    os.mkfifo(tmp_path / "gate")
    kernel.run("schema = {'type': 'object', 'properties': {'answer': {'type': 'integer'}}, 'required': ['answer']}")
    sent = kernel.send("%%cc_execute --rehearse schema-unmet --schema schema --reask --verify ': > sealed; cat gate' -o result\nAnswer.")
    wait_for((tmp_path / "sealed").exists)
    kernel.interrupt()
    answer = kernel.wait(sent, within=60)
    assert (answer.status, kernel.value("result.status")) == ("error", "'schema'")
    assert len(run_folders(state_folder)) == 1
    assert "its receipt is kept" in answer.evalue + answer.traceback


@NEWEST_LINE
def test_why_a_run_is_not_tried_again_is_said_in_the_cell_and_in_a_terminal(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prose = Turn(
        blocks=(Block(text="In prose: one."),), usage=Usage(output_tokens=20_000)
    )  # 20 cents, and it is asked twice in each attempt
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')
    said = "Not tried again: $0.40 of the $0.41 are spent that it may cost. Raise max_cost."
    with serving(Script(name="prose", turns=(prose,) * 8), cwd=str(tmp_path)) as served:
        log_in(kernel, served)
        kernel.run("schema = {'type': 'object'}")
        cell = kernel.run("%%cc_execute --schema schema --reask --max-cost 0.405 --no-raise-error -o result\nCount.")
        assert said in cell.stream
        assert kernel.value("result.remark") == repr(said)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", served.url)
        monkeypatch.setenv("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-nobody")
        assert said in cli("run", "--schema", schema, "--reask", "--max-cost", "0.405", "Count.", cwd=tmp_path).stderr


# --- a notebook's caps ------------------------------------------------------------------------------------------------

BOUNDS = """
import json
from cc_executor import cc_execute, cc_execute_list, cc_execute_sync
def bounds(*results):
    return [json.loads((result.folder / 'request.json').read_text())['limits']['cost'] for result in results]
tasks = [{'id': 'a', 'prompt': 'one', 'rehearse': 'hello'}, {'id': 'b', 'prompt': 'two', 'rehearse': 'hello', 'max_cost': 0.5}]
"""


@NEWEST_LINE
def test_a_cap_of_the_notebook_holds_for_what_python_and_lists_run(kernel: Kernel, state_folder: Path) -> None:
    kernel.run(f"{BOUNDS}\n%config CCExecutor.max_cost = 0.25")
    assert (
        kernel.value("bounds(await cc_execute('true', agent='shell'), await cc_execute('true', agent='shell', max_cost=5))")
        == "[0.25, 5.0]"
    )
    assert kernel.value("bounds(cc_execute_sync('true', agent='shell'))") == "[0.25]"
    kernel.run("listed = await cc_execute_list(tasks, max_cost=5)")
    assert kernel.value("bounds(*(listed.result(name) for name in 'ab'))") == "[0.25, 0.5]"
    kernel.run("%config CCExecutor.max_cost = 0.125")
    assert kernel.run("%%cc_tasks -o listed\n- {id: c, prompt: one, rehearse: hello}").status == "ok"
    assert kernel.value("bounds(listed.result('c'))") == "[0.125]"
    goes_on = ListHome(StateHome(state_folder)).find(kernel.value("listed.list_id").strip("'"))
    assert with_kept_cap({}, goes_on) == {"CC_EXECUTOR_MAX_COST": "0.125"}, "for whoever goes on with it without this notebook"
    kernel.run("%config CCExecutor.max_cost = None")
    assert kernel.value("bounds(await cc_execute('true', agent='shell'))") == "[None]"


@NEWEST_LINE
def test_a_cap_of_the_notebook_for_the_day_holds_for_what_python_runs_until_it_is_taken_back(kernel: Kernel, state_folder: Path) -> None:
    kernel.run(f"{BOUNDS}\n%config CCExecutor.max_cost_per_day = 0.005")
    assert kernel.run("await cc_execute('x')").ename == "DaySpent"
    assert list(run_folders(state_folder)) == []
    assert kernel.value("(await cc_execute_list(tasks)).status") == "'budget'"
    for wrong in ("-1", "float('nan')"):
        assert "CCExecutor.max_cost_per_day is" in kernel.run(f"%config CCExecutor.max_cost_per_day = {wrong}").stream
        assert kernel.run("await cc_execute('x')").ename == "DaySpent", "the cap before it holds"
    kernel.run("%unload_ext cc_executor")
    assert kernel.value("(await cc_execute('true', agent='shell')).status") == "'ok'"


@NEWEST_LINE
def test_an_unchanged_cell_is_not_paid_twice_where_the_day_has_a_cap(kernel: Kernel, tmp_path: Path) -> None:
    turn = Turn(blocks=(Block(text="paid"),), usage=Usage(input_tokens=0, output_tokens=20_000))
    with serving(Script(name="paid", turns=(turn,)), cwd=str(tmp_path)) as served:
        log_in(kernel, served)
        kernel.run("%config CCExecutor.max_cost_per_day = 20")
        for name in ("first", "second"):
            answer = kernel.run(f"%%cc_execute --once -o {name}\nAnswer.")
            assert answer.status == "ok", answer.traceback
        assert asked(served) == 1
    assert kernel.value("first.receipt == second.receipt, first.cost > 0") == "(True, True)"


@NEWEST_LINE
def test_an_unchanged_cell_is_not_paid_twice_whose_run_had_to_wait_for_a_limit(kernel: Kernel, serve: Serve) -> None:
    served = serve(time.time() + 3)
    log_in(kernel, served)
    for name in ("first", "second"):
        answer = kernel.run(f"%%cc_execute --once --on-limit wait -o {name}\nAnswer.", within=60)
        assert answer.status == "ok", answer.traceback
    assert asked(served) == 2, "one was refused, one answered"
    assert kernel.value("first.receipt == second.receipt, first.text") == "(True, 'gone on')"
