"""Money and limits with the real CLI: its API is a script on loopback that counts tokens, refuses for a usage limit, and cuts answers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from cc_executor import cc_execute
from cc_executor.api import make_request
from cc_executor.errors import DaySpent
from cc_executor.model.event import Repeated
from cc_executor.model.listrecord import (
    Begun,
    Ended,
    Hurried,
    ListState,
    Record,
    SkipAsked,
    Stopped,
    TaskStatus,
    Validated,
    Validating,
    Waiting,
)
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import RunId
from cc_executor.rehearsal.scripts import Block, Fault, Script, Turn, Usage
from cc_executor.rehearsal.server import ServedRehearsal, serving
from cc_executor.runtime import adoption, again
from cc_executor.runtime.again import resumable, wait_until, within_day
from cc_executor.runtime.plan import PLAN, Plan
from cc_executor.runtime.retention import plan_pruning, prune
from cc_executor.server.owners import Owners
from cc_executor.server.policy import Admission, Rules
from cc_executor.shim import records as recorded
from cc_executor.store.home import StateHome, new_run_id, state_path
from cc_executor.store.journal import RunStanding, request_json
from cc_executor.store.spend import LONGEST_DAY, DaySpend
from cc_executor.store.tasklists import ListFolder, ListHome
from cc_executor.taskplan import Plan as ListPlan
from cc_executor.taskplan import plan
from cc_executor.tasks import ListResult, cc_execute_list
from support.receipts import receipt
from support.runs import eventually

pytestmark = pytest.mark.usefixtures("claude_cli")

PROSE = 1
TWENTY_CENTS = Usage(input_tokens=0, output_tokens=20_000)
Serve = Callable[..., ServedRehearsal]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Serve]:
    """A scripted API that the CLI takes for the real one: what is counted is counted, sessions are kept, and a subscription logs in."""
    with ExitStack() as stack:

        def start(*turns: Turn, repeat: int = 1) -> ServedRehearsal:
            served = stack.enter_context(serving(Script(name="api", turns=turns, repeat=repeat), cwd=str(tmp_path)))
            monkeypatch.setenv("ANTHROPIC_BASE_URL", served.url)
            monkeypatch.setenv("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-nobody")
            monkeypatch.setenv("CLAUDE_CODE_MAX_RETRIES", "0")
            return served

        yield start


def says(text: str = "done", **more: Any) -> Turn:
    return Turn(blocks=(Block(text=text),), **more)


def limited(resets_at: float, *, times: int | None = 1, text: str = "done") -> Turn:
    """An answer that is refused for a usage limit, as a subscription is."""
    headers = {
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-reset": str(int(resets_at)),
        "anthropic-ratelimit-unified-representative-claim": "five_hour",
    }
    fault = Fault(kind="status", at="headers", status=429, error="rate_limit_error", message="usage limit", times=times)
    return says(text, headers=headers, fault=fault)


def asked(served: ServedRehearsal) -> int:
    return sum(request.kind == "main" for request in served.requests)


def records(home: StateHome, result: ListResult) -> list[Any]:
    return list(ListHome(home).find(result.list_id).read()[0])


def receipts(home: StateHome) -> list[Receipt]:
    """Of all runs, oldest first."""
    return [kept for folder in home.runs() if (kept := folder.receipt()) is not None][::-1]


# --- a usage limit ----------------------------------------------------------------------------------------------------


async def test_a_usage_limit_stops_the_list_at_once_with_its_end(tmp_path: Path, serve: Serve) -> None:
    served = serve(limited(time.time() + 3600, times=None))
    result = await cc_execute_list(["one", "two"], cwd=tmp_path, on_failure="continue")
    assert (result.status, [task.status.value for task in result.tasks.values()]) == ("usage_limited", ["failed", "waiting"])
    assert result.summary.startswith("1: The usage limit is reached until 20")
    assert asked(served) == 1


def runner(text: str, folder: Path) -> subprocess.Popen[bytes]:
    """Another process that runs the list."""
    return subprocess.Popen([sys.executable, "-c", RUNNER, text, str(folder)], start_new_session=True)


RUNNER = "import sys; from cc_executor.tasks import cc_execute_task_list as run; run(sys.argv[1], cwd=sys.argv[2])"


async def test_a_usage_limit_is_waited_for_also_by_the_next_who_runs_the_list(tmp_path: Path, serve: Serve, home: StateHome) -> None:
    resets_at = int(time.time()) + 6
    served = serve(limited(resets_at, text="gone on"))
    text = "on_limit: wait\ntasks:\n  - {id: a, prompt: one, limit_wait_max: 600}\n  - {id: b, run: cat $CC_NEEDS/a.txt, needs: a}\n"
    folder = ListHome(home).open(plan(text, cwd=tmp_path).tasks)
    process = runner(text, tmp_path)
    await eventually(lambda: folder.state().task("a").until is not None)
    process.kill()
    process.wait()
    until = folder.state().task("a").until
    assert until is not None
    assert until >= resets_at  # two seconds later; on a machine that took so long that this is over, five seconds from then
    result = await cc_execute_list(text, cwd=tmp_path)
    assert (result.status, result["b"]) == ("ok", "gone on")
    assert time.time() >= until
    assert asked(served) == 2
    first, second = [receipt for receipt in receipts(home) if receipt.agent == "claude"]
    assert (first.outcome.kind, first.session_id) == ("usage_limited", second.session_id)
    assert f"--resume={first.session_id}" in second.argv
    assert [type(record) for record in records(home, result) if isinstance(record, Begun | Waiting) and record.task == "a"] == [
        Begun,
        Waiting,
        Begun,
    ]


def acting(folder: ListFolder, when: Callable[[ListState], bool], record: Any) -> Callable[[ListState], None]:
    """Append a record as soon as the list stands so."""
    done: list[bool] = []

    def look(state: ListState) -> None:
        if when(state) and not done:
            done.append(True)
            folder.append(record)

    return look


async def test_a_clock_that_is_set_back_makes_no_wait_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    wall, steady, told = 1_000_000.0, 0.0, list[float]()

    def tell(left: float) -> None:
        nonlocal wall, steady
        told.append(left)
        wall, steady = wall - 86400, steady + 0.375

    monkeypatch.setattr(again, "time", SimpleNamespace(time=lambda: wall, monotonic=lambda: steady))  # clocks that go while it waits
    with anyio.fail_after(30):
        await wait_until(wall + 0.5, is_over=lambda: False, tell=tell)
    assert told == [0.5, 0.125]


async def test_who_does_not_want_to_wait_any_more_waits_no_more() -> None:
    told: list[float] = []
    with anyio.fail_after(60):
        await wait_until(time.time() + 600, is_over=lambda: len(told) > 1, tell=told.append)
    assert 500 < told[1] < told[0] <= 600


async def test_somebody_goes_on_now_and_somebody_ends_the_waiting(tmp_path: Path, serve: Serve, home: StateHome) -> None:
    def waits(state: ListState) -> bool:
        return state.task("a").until is not None

    planned = plan([{"id": "a", "prompt": "one"}], cwd=tmp_path, on_limit="wait")
    folder = ListHome(home).open(planned.tasks)
    served = serve(limited(time.time() + 600))
    result = await cc_execute_list(planned, on_state=acting(folder, waits, Hurried(at=0.0, task="a")))
    assert (result.status, asked(served)) == ("ok", 2)
    other = plan([{"id": "a", "prompt": "other"}], cwd=tmp_path, on_limit="wait")
    result = await cc_execute_list(other, on_state=acting(ListHome(home).open(other.tasks), waits, Stopped(at=0.0, task="a")))
    assert (result.status, result.tasks["a"].status) == ("failed", TaskStatus.STOPPED)


# --- money ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("noon")
async def test_the_task_that_would_exceed_half_a_dollar_does_not_start_and_a_higher_cap_goes_on(
    tmp_path: Path, serve: Serve, home: StateHome
) -> None:
    served = serve(says(usage=TWENTY_CENTS))
    tasks = [{"id": name, "prompt": name, "max_cost": 0.25} for name in "abc"]
    result = await cc_execute_list(tasks, cwd=tmp_path, max_cost=0.5)
    assert (result.status, result.cost, asked(served)) == ("budget", pytest.approx(0.4), 2)
    assert result.summary == "c may cost $0.25, and $0.10 of $0.50 are left. A cap of $0.65 would let it start."
    more = await cc_execute_list(tasks, cwd=tmp_path, max_cost=0.65)
    assert (more.status, more.list_id, asked(served)) == ("ok", result.list_id, 3)
    assert DaySpend(home).total(time.time()) == pytest.approx(0.6)


async def test_in_a_group_each_reserves_what_it_may_spend_and_one_without_a_bound_is_alone(tmp_path: Path, serve: Serve) -> None:
    serve(says(usage=TWENTY_CENTS, wait=0.5))
    most: list[int] = []

    def count(state: ListState) -> None:
        most.append(sum(task.status is TaskStatus.RUNNING for task in state.tasks.values()))

    tasks = [{"id": f"t{n}", "prompt": str(n), "group": "g", **({"max_cost": 0.25} if n < 3 else {})} for n in range(4)]
    result = await cc_execute_list(tasks, cwd=tmp_path, max_cost=0.6, on_state=count)
    assert (max(most), result.status) == (2, "budget")
    assert (result.cost, result.tasks["t3"].status) == (pytest.approx(0.4), TaskStatus.WAITING)


@pytest.mark.usefixtures("noon")
async def test_the_day_has_a_cap_for_lists_and_for_single_runs(tmp_path: Path, serve: Serve) -> None:
    served = serve(says(usage=TWENTY_CENTS))
    await cc_execute("one", cwd=tmp_path)
    result = await cc_execute_list([{"prompt": "two", "max_cost": 0.25}], cwd=tmp_path, max_cost_per_day=0.4)
    assert result.status == "budget"
    assert result.summary == "1 may cost $0.25, and $0.20 of the day's $0.40 are left. Go on tomorrow, or with a day's cap of $0.45."
    with pytest.raises(DaySpent, match=r"\$0\.20 of the day's \$0\.20 are spent"):
        await cc_execute("three", cwd=tmp_path, max_cost_per_day=0.2)
    second = await cc_execute("four", cwd=tmp_path, max_cost_per_day=0.5)
    assert "--max-budget-usd=0.3" in second.receipt.argv
    assert asked(served) == 2


@pytest.mark.usefixtures("noon")
@pytest.mark.parametrize(
    ("options", "cap", "bound"),
    [
        ({}, 1.0, 1.0),
        ({}, None, None),
        ({"max_cost": 0.4}, 1.0, 0.4),
        ({"max_cost": 2.0}, 1.0, 1.0),
        ({"agent": "shell"}, 1.0, None),
        ({"rehearse": "hello"}, 1.0, None),
    ],
)
def test_a_run_may_cost_the_less_of_its_own_bound_and_what_is_left_of_the_day(
    options: dict[str, Any], cap: float | None, bound: float | None, home: StateHome
) -> None:
    assert within_day(make_request("x", **options), cap, home=home, now=time.time()).limits.cost == bound


def test_a_session_is_continued_where_its_transcript_is_and_no_rehearsal_or_command(tmp_path: Path) -> None:
    session, environ = "0" * 8, {"CLAUDE_CONFIG_DIR": str(tmp_path)}
    assert resumable(receipt(session_id=session), environ) == ""
    transcript = tmp_path / "projects" / "p" / f"{session}.jsonl"
    transcript.parent.mkdir(parents=True)
    transcript.touch()
    assert resumable(receipt(session_id=session), environ) == session
    assert resumable(receipt(session_id=session, agent="shell"), environ) == ""
    assert resumable(receipt(session_id=session, rehearsed="hello"), environ) == ""
    assert resumable(receipt(), environ) == ""


@pytest.mark.usefixtures("noon")
async def test_a_run_whose_end_nobody_saw_was_paid_all_the_same(tmp_path: Path, serve: Serve, home: StateHome) -> None:
    served = serve(says(usage=TWENTY_CENTS))
    await anyio.run_process([sys.executable, "-m", "cc_executor.cli", "run", "--detach", "one"], cwd=tmp_path)
    (folder,) = home.runs()
    await eventually(lambda: folder.standing(time.time()) is RunStanding.ENDED)
    with pytest.raises(DaySpent, match=r"\$0\.20 of the day's \$0\.20 are spent"):
        await cc_execute("two", cwd=tmp_path, max_cost_per_day=0.2)
    result = await cc_execute_list([{"prompt": "three", "max_cost": 0.25}], cwd=tmp_path, max_cost_per_day=0.4)
    assert result.summary.startswith("1 may cost $0.25, and $0.20 of the day's $0.40 are left.")
    admission = Admission(home, Owners(home.root, by_name=True, server_owner="olga"), Rules(day_cost=0.4))
    bounded = await admission.reserve(new_run_id(time.time()), make_request("four", cwd=tmp_path), "olga")
    assert bounded.limits.cost == pytest.approx(0.2)
    assert (asked(served), receipts(home)) == (1, []), "it is for others to seal it: whoever looks at it"


@pytest.mark.usefixtures("noon")
async def test_what_was_paid_today_stays_spent_whatever_is_pruned(tmp_path: Path, serve: Serve, home: StateHome) -> None:
    served = serve(says(usage=TWENTY_CENTS))
    paid = (await cc_execute("one", cwd=tmp_path)).receipt
    free = (await cc_execute("true", agent="shell", cwd=tmp_path)).receipt
    command = [sys.executable, "-m", "cc_executor.cli", "history", "prune", "--keep", "0", "--whole", "--yes"]
    done = await anyio.run_process(command, check=True)
    (kept,) = [line for line in done.stdout.decode().splitlines() if line.startswith(paid.run_id)]
    assert "journal; what it has cost counts for the bound of its day" in kept
    assert "1 keeps its receipt all the same" in done.stderr.decode()
    with pytest.raises(DaySpent, match=r"\$0\.20 of the day's \$0\.20 are spent"):
        await cc_execute("two", cwd=tmp_path, max_cost_per_day=0.2)
    assert asked(served) == 1
    assert receipts(home) == [paid], f"{free.run_id} cost nothing, and went"
    later = time.time() + LONGEST_DAY
    prune(home, plan_pruning(home, environ=os.environ, now=later, keep=0, whole=True), environ=os.environ, now=later)
    assert receipts(home) == []


async def test_a_resumed_session_costs_what_came_since(tmp_path: Path, serve: Serve) -> None:
    serve(says(usage=TWENTY_CENTS), says(usage=TWENTY_CENTS))
    first = await cc_execute("one", cwd=tmp_path)
    second = await cc_execute("two", cwd=tmp_path, resume=first.receipt.session_id)
    assert (first.cost, second.cost) == (pytest.approx(0.2), pytest.approx(0.2))


# --- cut answers, missing results, circles ----------------------------------------------------------------------------


async def test_a_cut_answer_is_gone_on_with_in_its_session(tmp_path: Path, serve: Serve, home: StateHome) -> None:
    cut = says("half of", stop_reason="max_tokens", usage=TWENTY_CENTS)
    served = serve(cut, cut, cut, cut, says(" the answer", usage=TWENTY_CENTS))
    result = await cc_execute_list([{"id": "a", "prompt": "much", "on_output_limit": "continue"}], cwd=tmp_path)
    assert (result.status, asked(served)) == ("ok", 5)
    first, second = receipts(home)
    assert f"--resume={first.session_id}" in second.argv
    assert result.cost == pytest.approx(1.0)
    assert (result.result("a").folder / "prompt").read_text().startswith("Your last answer was cut at the output limit. Go on exactly")


async def test_a_cut_answer_of_a_single_run_is_gone_on_with_in_its_session_and_for_what_is_left_of_its_money(
    tmp_path: Path, serve: Serve, home: StateHome
) -> None:
    cut = says("half of", stop_reason="max_tokens", usage=Usage(input_tokens=0, output_tokens=2_000))
    serve(cut, cut, cut, cut, says(" the answer"))
    result = await cc_execute("much", on_output_limit="continue", max_cost=1.0, cwd=tmp_path)
    assert result.status == "ok"
    first, second = receipts(home)
    assert {f"--resume={first.session_id}", "--max-budget-usd=0.92"} <= set(second.argv)
    assert (result.folder / "prompt").read_text().startswith("Your last answer was cut at the output limit. Go on exactly")


async def test_a_missing_structured_result_is_asked_for_once_more(tmp_path: Path, serve: Serve) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    tell = says("In prose: one.")
    serve(tell, *[tell] * PROSE, Turn(blocks=(Block(tool="StructuredOutput", input_from_schema=True),)), says("So."))
    result = await cc_execute_list([{"id": "a", "prompt": "count", "schema": schema, "reask": True}], cwd=tmp_path)
    assert (result.status, result.tasks["a"].begun) == ("ok", 2), result
    assert isinstance(result["a"]["n"], int)


@pytest.mark.parametrize(("cap", "bounds"), [(1.0, [1.0, 0.6]), (0.405, [0.405])])
async def test_a_bound_holds_for_all_attempts_together(
    cap: float, bounds: list[float], tmp_path: Path, serve: Serve, home: StateHome
) -> None:
    serve(*[says("In prose: one.", usage=TWENTY_CENTS)] * (2 * PROSE + 2))
    result = await cc_execute("count", schema={"type": "object"}, reask=True, max_cost=cap, cwd=tmp_path)
    assert result.status == "schema"
    options = [word for each in receipts(home) for word in each.argv if word.startswith("--max-budget-usd=")]
    assert [float(word.partition("=")[2]) for word in options] == pytest.approx(bounds)
    assert result.remark == ("Not tried again: $0.40 of the $0.41 are spent that it may cost. Raise max_cost." if cap < 1 else "")


@pytest.mark.usefixtures("noon")
async def test_an_attempt_for_which_the_day_has_nothing_left_leaves_the_one_before_it(tmp_path: Path, serve: Serve) -> None:
    serve(*[says("In prose: one.", usage=TWENTY_CENTS)] * (2 * PROSE + 2))
    result = await cc_execute("count", schema={"type": "object"}, reask=True, max_cost_per_day=0.405, cwd=tmp_path)
    assert (result.status, result.cost) == ("schema", pytest.approx(0.4))
    assert result.remark == "Not tried again: $0.40 of the day's $0.41 are spent. Go on tomorrow, or raise max_cost_per_day."


async def test_an_agent_that_goes_round_in_a_circle_is_ended_by_wish(tmp_path: Path, serve: Serve) -> None:
    same = (Block(tool="Bash", input={"command": "echo same"}),)
    served = serve(*[Turn(blocks=same)] * 12, Turn(blocks=same, wait=100.0))  # nothing but the guard ends the agent
    told: list[Repeated] = []
    result = await cc_execute(
        "go",
        cwd=tmp_path,
        tools="Bash",
        loop_guard="stop",
        on_event=lambda event: told.append(event) if isinstance(event, Repeated) else None,
    )
    assert [(event.name, event.about, event.count) for event in told] == [("Bash", "echo same", 12)]
    assert (result.status, result.receipt.exit.stopped_for) == ("stalled", "loop")
    assert "by the loop guard: 12 × Bash(echo same), the same result each time" in result.receipt.outcome.evidence
    assert asked(served) in (12, 13)  # the last result is judged while the agent sends it


# --- validation -------------------------------------------------------------------------------------------------------


def verdict(word: str) -> Turn:
    return Turn(blocks=(Block(tool="StructuredOutput", input={"verdict": word, "reasons": "I looked."}),), usage=TWENTY_CENTS)


@pytest.mark.parametrize(
    ("turn", "policy", "said"),
    [
        (verdict("pass"), "fail", "ok: Validated: I looked."),
        (verdict("fail"), "accept", "failed: The validation failed: I looked."),
        (verdict("could_not_check"), "fail", "failed: The validation could not be made: I looked."),
        (says("Fine."), "fail", "failed: The validation could not be made: A structured result was asked for, and there is none."),
        (
            verdict("could_not_check"),
            "accept",
            "ok: The validation could not be made: I looked; accepted unchecked (on_unchecked: accept).",
        ),
    ],
    ids=["pass", "fail", "could not check", "no verdict", "accepted unchecked"],
)
async def test_a_fresh_agent_looks_at_the_work(turn: Turn, policy: str, said: str, tmp_path: Path, serve: Serve) -> None:
    home = StateHome(state_path(os.environ))
    serve(turn, says("So."), repeat=5)
    look = {"verify": "test -s made.txt", "validate": "made.txt says made", "on_unchecked": policy}
    result = await cc_execute_list([{"id": "a", "run": "echo made > made.txt", **look}, {"id": "b", "run": "true"}], cwd=tmp_path)
    assert f"{result.status}: {result.tasks['a'].summary}" == said
    validator = next(receipt for receipt in receipts(home) if receipt.agent == "claude")
    assert validator.permission_mode == "dontAsk"
    assert "made.txt says made" in (home.find(validator.run_id).path / "prompt").read_text()
    assert result.tasks["a"].spent == validator.cost


async def test_what_a_check_refutes_is_not_looked_at(tmp_path: Path, serve: Serve) -> None:
    served = serve(verdict("pass"))
    result = await cc_execute_list([{"id": "a", "run": "true", "verify": "test -e never", "validate": "it is there"}], cwd=tmp_path)
    assert (result.status, asked(served)) == ("failed", 0)


async def test_a_validation_is_not_made_twice_when_who_ran_the_list_is_killed(tmp_path: Path, serve: Serve, home: StateHome) -> None:
    wait = verdict("pass")
    served = serve(Turn(blocks=wait.blocks, wait=2.0), says("So."))
    text = "tasks:\n  - {id: a, run: 'true', validate: it is so}\n"
    folder = ListHome(home).open(plan(text, cwd=tmp_path).tasks)
    process = runner(text, tmp_path)
    await eventually(lambda: asked(served) == 1)
    process.kill()
    process.wait()
    assert folder.state().task("a").validation == "running"
    result = await cc_execute_list(text, cwd=tmp_path)
    assert result.ok, result
    assert len(receipts(home)) == 2
    assert [record.verdict for record in records(home, result) if isinstance(record, Validated)] == ["pass"]


@pytest.mark.parametrize("left", ["no folder", "half a request", "no supervisor"])
async def test_a_look_whose_launcher_was_killed_before_anything_ran_is_made_again(
    left: str, tmp_path: Path, serve: Serve, home: StateHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "LATE", 0.2)
    served = serve(verdict("pass"), says("So."))
    planned, run_id = about_to_be_looked_at(home, tmp_path)
    if left != "no folder":
        run = home.create(run_id)
        run.write_new(recorded.REQUEST, b"" if left == "half a request" else request_json(make_request("x", cwd=tmp_path)))
        if left == "no supervisor":
            run.write_new(
                PLAN, Plan(argv=("true",), agent_path="/bin/true", agent_version="", session_id="s", env_names=(), before={}).to_json()
            )
    result = await cc_execute_list(planned)
    assert (result.status, result.tasks["a"].verdict, asked(served)) == ("ok", "pass", 1)


@pytest.mark.parametrize(
    "wish", [None, Stopped(at=0.0, task="a"), SkipAsked(at=0.0, task="a")], ids=["no money left", "stopped", "skipped"]
)
async def test_a_look_that_was_never_launched_is_not_made_when_there_is_no_money_for_it_or_nobody_wants_it_any_more(
    wish: Record | None, tmp_path: Path, serve: Serve, home: StateHome
) -> None:
    served = serve(verdict("pass"), says("So."))
    planned, _ = about_to_be_looked_at(home, tmp_path, spent=0.0 if wish else 1.0)
    if wish is not None:
        ListHome(home).open(planned.tasks).append(wish)
    result = await cc_execute_list(planned)
    assert (result.tasks["a"].verdict, asked(served), len(list(home.runs()))) == ("could_not_check", 0, 0)
    assert ("there is no money left for it" if wish is None else "it was ended before") in result.tasks["a"].summary


def about_to_be_looked_at(home: StateHome, cwd: Path, *, spent: float = 0.0) -> tuple[ListPlan, RunId]:
    """A list of a dollar whose runner was killed when it had written down that somebody would look at a task's work, and in what run."""
    planned = plan([{"id": "a", "run": "true", "validate": "it is so"}], cwd=cwd, max_cost=1.0)
    folder, run_id = ListHome(home).open(planned.tasks), new_run_id(time.time())
    folder.append(Begun(at=time.time(), task="a", attempt=1))
    folder.append(Ended(at=time.time(), task="a", attempt=1, outcome="ok", cost=spent, to_validate=True))
    folder.append(Validating(at=time.time(), task="a", attempt=1, run_id=run_id))
    return planned, run_id


async def test_a_look_that_names_no_bound_has_that_of_every_run(tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC_EXECUTOR_MAX_COST", "0.1")
    look = {"prompt": "It is polite.", "rehearse": "schema"}
    tasks = [{"id": "a", "run": "true", "validate": look}, {"id": "b", "run": "true", "validate": look | {"max_cost": 0.3}}]
    assert (await cc_execute_list(tasks, cwd=tmp_path)).ok
    costs = [folder.request().limits.cost for folder in home.runs() if folder.request().agent == "claude"]
    assert costs == [0.3, 0.1]
