"""The real CLI asks, with a scripted model: leave given once and for the run, refused with a reason, questions answered, and nobody there."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, cast

import anyio
import pytest

from cc_executor import Result, cc_execute
from cc_executor.agents.claude.control import answer_line
from cc_executor.api import make_request
from cc_executor.errors import ControlFailed, InvalidRequest
from cc_executor.model.ask import Answer, Ask, Decision
from cc_executor.model.event import Answered, Event, Option, PermissionAsked, Question, QuestionAsked, ToolReturned
from cc_executor.model.phase import Phase
from cc_executor.runtime.answers import CLOSED, give, open_ask, open_asks, understood
from cc_executor.runtime.askpage import shown
from cc_executor.runtime.run import Run
from cc_executor.store.home import StateHome
from cc_executor.tasks import cc_execute_list
from support.recordings import Recording
from support.runs import eventually, until

Saw = Callable[[str], None]

BOUND: Final = 60.0

needs_cli = pytest.mark.usefixtures("claude_cli")


async def asked(folder: Path, *, rehearse: str = "approval", on_ask: Any = None, **more: Any) -> Result:
    with anyio.fail_after(BOUND):
        return await cc_execute("Go.", cwd=folder, rehearse=rehearse, permission_mode="default", ask=True, on_ask=on_ask, **more)


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def results_into(told: list[str]) -> Callable[[Event], None]:
    """A callback that writes down what the agent's tools have returned."""

    def listen(event: Event) -> None:
        if isinstance(event, ToolReturned):
            told.append(event.text)

    return listen


def decisions(result: Result) -> list[tuple[str, str, str]]:
    return [(one.what.split(":")[0], one.decision, one.note) for one in result.receipt.asked]


@needs_cli
async def test_leave_for_once_is_for_once_and_leave_for_the_run_for_the_run(tmp_path: Path) -> None:
    seen: list[str] = []

    def allow(ask: Ask) -> object:
        assert isinstance(ask, PermissionAsked)
        seen.append(ask.name)
        return True

    result = await asked(tmp_path, on_ask=allow)
    assert (result.status, seen) == ("ok", ["Write", "Bash", "Bash"])
    assert names(tmp_path) == {"plan.md", "approved.txt"}

    seen.clear()
    other = tmp_path / "other"
    other.mkdir()

    async def allow_run(ask: Ask) -> object:
        assert isinstance(ask, PermissionAsked)
        seen.append(ask.name)
        return True if ask.name == "Write" else "allow_run"

    result = await asked(other, on_ask=allow_run)
    assert (result.status, seen) == ("ok", ["Write", "Bash"]), "the same command is not asked for again"
    assert decisions(result) == [("Write", "allow", ""), ("Bash", "allow_run", "")]
    assert names(other) == {"plan.md", "approved.txt"}, "nothing was written into the folder's own settings"


@needs_cli
async def test_a_no_reaches_the_agent_with_its_reason_and_stands_in_the_receipt(tmp_path: Path) -> None:
    told: list[str] = []
    result = await asked(tmp_path, on_ask=lambda _: "only after lunch", on_event=results_into(told))
    assert told == ["only after lunch"] * 3
    assert names(tmp_path) == set()
    assert decisions(result) == [("Write", "deny", "only after lunch"), *[("Bash", "deny", "only after lunch")] * 2]
    assert all(one.by == "python" and one.at is not None for one in result.receipt.asked)
    assert result.status == "ok", "a person's own no is no failure"
    assert result.receipt.denials == ("Write", "Bash", "Bash")


@needs_cli
async def test_questions_are_answered_in_the_words_of_whoever_answers(tmp_path: Path) -> None:
    told: list[str] = []
    result = await asked(
        tmp_path,
        rehearse="question",
        on_ask=lambda ask: {question.text: question.options[-1].label for question in ask.questions},
        on_event=results_into(told),
    )
    assert result.status == "ok"
    assert '"Which data should the report use?"="All years"' in told[0]
    assert '"Which parts do you want?"="Plots"' in told[0]
    assert [(one.kind, one.decision, one.note) for one in result.receipt.asked] == [("question", "answer", "All years · Plots")]


@needs_cli
@pytest.mark.row("faults", "agent asks and nobody can answer", "refused within 1 s, reason told, cure in the verdict")
async def test_where_nobody_can_answer_the_agent_is_told_so_at_once(tmp_path: Path, saw: Saw) -> None:
    times: dict[str, float] = {}
    waited: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, PermissionAsked):
            times[event.ask_id] = time.monotonic()
        if isinstance(event, Answered):
            waited.append(time.monotonic() - times[event.ask_id])

    result = await asked(tmp_path, on_event=listen)
    assert len(waited) == 3
    assert max(waited) < 1.0
    saw(f"{max(waited):.3f} s")
    assert result.status == "denied"
    assert "gave no on_ask" in result.receipt.outcome.summary
    assert result.receipt.outcome.cure == 'Pass on_ask=, or allow it beforehand with --tools "Write,Bash".'
    assert {one.decision for one in result.receipt.asked} == {"refused"}
    assert (await asked(tmp_path, rehearse="question")).status == "denied"


ASKER: Final = """#!{python} -IS
import json, sys
if "--version" in sys.argv:
    print("2.1.329 (Claude Code)")
    sys.exit()
for ask_id in ("d1", "d2"):
    print('{{"type":"control_request","request_id":"%s","request":{{"subtype":"request_user_dialog"}}}}' % ask_id, flush=True)
    while json.loads(answer := sys.stdin.readline()).get("type") != "control_response":
        pass
    open("answers", "a").write(answer)
with open({output!r}) as file:
    print(file.read())
"""


async def test_an_agent_that_asks_for_what_nobody_can_give_is_told_so_and_goes_on(tmp_path: Path) -> None:
    asker = tmp_path / "asker"
    asker.write_text(ASKER.format(python=sys.executable, output=str(Recording("01-success-text").path)))
    asker.chmod(0o700)
    with anyio.fail_after(BOUND):
        result = await cc_execute("Go.", cwd=tmp_path, cli=str(asker), ask=True, on_ask=lambda _: True)
    assert result.status == "ok"
    told = [json.loads(line)["response"] for line in (tmp_path / "answers").read_text().splitlines()]
    error = "cc_executor does not offer request_user_dialog"
    assert [(each["request_id"], each["subtype"], each["error"]) for each in told] == [("d1", "error", error), ("d2", "error", error)]


@needs_cli
async def test_code_that_fails_or_says_nothing_sensible_is_a_no(tmp_path: Path) -> None:
    def fail(_: Ask) -> object:
        raise OSError("no network")

    result = await asked(tmp_path, on_ask=fail)
    assert {one.decision for one in result.receipt.asked} == {"deny"}
    assert "OSError" in result.receipt.asked[0].note
    odd: Any = iter((17, Answer(decision=cast("Decision", "everything")), Answer(decision=Decision.ALLOW, text=cast("str", None))))
    assert [one.decision for one in (await asked(tmp_path, on_ask=lambda _: next(odd))).receipt.asked] == ["deny"] * 3
    assert names(tmp_path) == set()


@needs_cli
@pytest.mark.parametrize("error", [asyncio.CancelledError("mine"), SystemExit(3)])
async def test_code_that_was_cancelled_or_ends_the_program_is_a_no(error: BaseException, tmp_path: Path) -> None:
    async def fail(_: Ask) -> object:
        raise error

    result = await asked(tmp_path, on_ask=fail)
    assert {one.decision for one in result.receipt.asked} == {"deny"}
    assert type(error).__name__ in result.receipt.asked[0].note


@needs_cli
async def test_the_loop_goes_on_while_code_thinks_and_a_cancelled_run_does_not_wait_for_it(tmp_path: Path) -> None:
    thinking, done = threading.Event(), threading.Event()

    def think(_: Ask) -> object:
        thinking.set()
        done.wait(BOUND)
        return True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: asked(tmp_path, on_ask=think))
        await eventually(thinking.is_set, within=BOUND)
        tasks.cancel_scope.cancel()
    done.set()
    assert names(tmp_path) == set()


@needs_cli
async def test_a_question_outlives_who_started_the_run_and_is_answered_by_whoever_comes(tmp_path: Path, home: StateHome) -> None:
    request = make_request("Go.", cwd=tmp_path, rehearse="approval", permission_mode="default", ask=True, tools="Write", timeout=BOUND)
    run = await Run.start(request, home=home, environ=os.environ)
    state = await until(run, lambda state: state.asks)
    assert state.phase is Phase.ASKING

    other = await Run.attach(home, run.run_id, environ=os.environ)
    (ask,) = (await until(other, lambda state: state.asks)).asks
    assert [each.ask_id for each in open_asks(other.folder)] == [ask.ask_id]
    page = shown(ask, cwd=str(tmp_path), mask=lambda text: text)
    assert (page.title, page.body) == ("Bash", "touch approved.txt; rm -f draft.txt")

    await other.pause()
    assert (await until(other, lambda state: state.is_paused)).phase is Phase.PAUSED
    give(other.folder, ask, Answer(decision=Decision.ALLOW_RUN), by="cli")
    with pytest.raises(ControlFailed, match="answered already"):
        give(run.folder, ask, Answer(decision=Decision.DENY), by="view")
    with pytest.raises(InvalidRequest, match="asks for leave"):
        give(run.folder, ask, Answer(decision=Decision.ANSWER, answers=("yes",)), by="view")
    await other.resume()
    receipt = await other.finish()
    assert receipt.outcome.ok
    assert [(one.decision, one.by) for one in receipt.asked] == [("allow_run", "cli")]
    with pytest.raises(ControlFailed):
        open_asks(run.folder)
    with pytest.raises(ControlFailed, match="not open any more"):
        open_ask((), ask.ask_id)
    assert "answered" in CLOSED


@needs_cli
async def test_a_waiting_run_can_be_cancelled_and_ends_by_its_wall_clock(tmp_path: Path, home: StateHome) -> None:
    request = make_request("Go.", cwd=tmp_path, rehearse="approval", permission_mode="default", ask=True)
    run = await Run.start(request, home=home, environ=os.environ)
    await until(run, lambda state: state.asks)
    receipt = await run.end(reason="cancel", by="test")
    assert receipt.outcome.kind.value == "cancelled"
    assert [(one.what.split(":")[0], one.decision) for one in receipt.asked] == [("Write", "")]

    late = await Run.start(
        request.model_copy(update={"limits": request.limits.model_copy(update={"wall": 4.0})}), home=home, environ=os.environ
    )
    assert (await late.finish()).outcome.kind.value == "timeout"


@needs_cli
async def test_a_task_list_without_a_view_refuses_at_once(tmp_path: Path) -> None:
    tasks = [{"id": "a", "prompt": "Go.", "ask": True, "rehearse": "approval", "permission_mode": "default"}]
    with anyio.fail_after(BOUND):
        result = await cc_execute_list(tasks, cwd=tmp_path, raise_error=False)
    receipt = result.result("a").receipt
    assert receipt.outcome.kind.value == "denied"
    assert "its task list runs without a live view" in receipt.outcome.summary


@needs_cli
async def test_without_ask_a_run_is_what_it_was(tmp_path: Path, home: StateHome) -> None:
    request = make_request("Go.", cwd=tmp_path, rehearse="approval", permission_mode="default")
    run = await Run.start(request, home=home, environ=os.environ)
    async with aclosing(run.follow()) as batches:
        events = [event async for batch in batches for event in batch.events]
    receipt = await run.finish()
    assert not [event for event in events if isinstance(event, PermissionAsked | QuestionAsked | Answered)]
    assert (run.folder.path / "prompt").read_bytes() == b"Go."
    assert receipt.asked == ()
    assert "asked" not in receipt.model_dump() or receipt.is_intact
    assert receipt.outcome.kind.value == "denied"
    assert "another permission mode" in receipt.outcome.cure


# --- what needs no run ---------------------------------------------------------------------------------------------------

PERMISSION: Final = PermissionAsked(ask_id="q", tool_id="t", name="Bash", input='{"command": "make"}')


@pytest.mark.parametrize(
    ("said", "decision", "text"),
    [
        (True, Decision.ALLOW, ""),
        ("allow", Decision.ALLOW, ""),
        (Decision.ALLOW_RUN, Decision.ALLOW_RUN, ""),
        (False, Decision.DENY, ""),
        (None, Decision.DENY, ""),
        ("deny", Decision.DENY, ""),
        ("yes", Decision.DENY, "yes"),  # what is not one of the words allows nothing
        (Answer(decision=Decision.DENY, text="no"), Decision.DENY, "no"),
        (Answer(decision=cast("Decision", "allow")), Decision.ALLOW, ""),  # people write the word
    ],
)
def test_only_a_clear_yes_is_a_yes(said: object, decision: Decision, text: str) -> None:
    answer = understood(PERMISSION, said)
    assert (answer.decision, answer.text) == (decision, text)
    assert isinstance(answer.decision, Decision)


@pytest.mark.parametrize("said", [1, 0, 17, object(), [True], "", {}])
def test_nothing_else_allows_anything(said: object) -> None:
    try:
        decision = understood(PERMISSION, said).decision
    except ValueError:
        decision = Decision.DENY
    assert decision is Decision.DENY


PARTS: Final = Question(text="Which parts?", header="Parts", multiple=True, options=(Option(label="Tables"), Option(label="Plots")))
QUESTIONS: Final = QuestionAsked(ask_id="q", tool_id="t", questions=(Question(text="Which data?", header="Data"), PARTS))
FORM: Final = QuestionAsked(ask_id="q", questions=(Question(text="Sure?", name="sure", typed=True), Question(text="Who?", name="who")))


@pytest.mark.parametrize(
    ("ask", "said", "answers"),
    [
        (QUESTIONS, ["All years", "Tables"], ("All years", "Tables")),
        (QUESTIONS, ("All years", ["Tables", "Plots"]), ("All years", "Tables, Plots")),
        (QUESTIONS, {"Which data?": "2025", "Parts": ("Tables", "Plots")}, ("2025", "Tables, Plots")),
        (FORM, {"sure": True, "Who?": "Ada"}, ("true", "Ada")),
        (FORM, [False, 7], ("false", "7")),
        (QuestionAsked(ask_id="q", tool_id="t", questions=(PARTS,)), "deny", ("deny",)),  # words are what somebody answers
        (QuestionAsked(ask_id="q", questions=(Question(text="Log in"),)), True, ("true",)),  # a form that wants no more than a yes
    ],
)
def test_a_question_is_answered_in_the_words_that_are_meant(ask: QuestionAsked, said: object, answers: tuple[str, ...]) -> None:
    assert understood(ask, said) == Answer(decision=Decision.ANSWER, answers=answers)
    assert answer_line(ask, understood(ask, said)), "it is one to this question"


@pytest.mark.parametrize(
    "said",
    [
        True,  # as one says who allows everything; "True" would be an answer that nobody has given
        {"Which data?": "2025"},
        {"Which data?": "2025", "Which parts?": None},
        ["2025", []],
        ["2025"],
        "2025",
        {},
    ],
)
def test_half_an_answer_is_none(said: object) -> None:
    with pytest.raises(ValueError, match=r"answer"):
        answer_line(QUESTIONS, understood(QUESTIONS, said))
    assert {understood(QUESTIONS, no).decision for no in (False, None)} == {Decision.DENY}


@pytest.mark.parametrize(
    "said", [True, [True], [[True]], object(), PARTS.options[0], [PARTS.options[0]], [[PARTS.options[0]]], {"Parts": b"Plots"}]
)
def test_what_is_neither_a_text_nor_a_number_is_no_answer_to_a_question(said: object) -> None:
    with pytest.raises(ValueError, match="answers no question"):
        understood(QuestionAsked(ask_id="q", tool_id="t", questions=(PARTS,)), said)


def test_a_number_is_an_answer() -> None:
    assert understood(QuestionAsked(ask_id="q", tool_id="t", questions=(PARTS,)), 2025).answers == ("2025",)


def test_a_command_does_not_ask() -> None:
    with pytest.raises(InvalidRequest, match="ask is for agents that ask"):
        make_request("true", agent="shell", ask=True)


def page_of(name: str, tmp_path: Path, **call: Any) -> Any:
    return shown(
        PermissionAsked(ask_id="q", tool_id="t", name=name, input=json.dumps(call)),
        cwd=str(tmp_path),
        mask=lambda text: text.replace("s3cret", "[masked]"),
    )


def test_what_would_change_is_shown_against_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    page = page_of("Write", tmp_path, file_path="a.txt", content="one\n2\nthree\n")
    assert (page.body_kind, page.about) == ("diff", "a.txt")
    assert page.body == "@@ -1,3 +1,3 @@\n one\n-two\n+2\n three"
    assert page_of("Write", tmp_path, file_path="new.txt", content="a\nb\n").body == "+a\n+b"
    assert "-x = 1\n+x = 2" in page_of("Edit", tmp_path, file_path="b.py", old_string="x = 1", new_string="x = 2").body
    many = page_of("MultiEdit", tmp_path, file_path="b.py", edits=[{"old_string": "a", "new_string": "b", "replace_all": True}])
    assert "-a\n+b\n(everywhere in the file)" in many.body
    os.mkfifo(tmp_path / "pipe")
    assert page_of("Write", tmp_path, file_path="pipe", content="x").body.endswith("\n+x"), "a pipe is not opened"


def test_a_path_below_the_runs_folder_is_shown_from_there_and_every_other_one_whole(tmp_path: Path) -> None:
    cwd = tmp_path / "work"
    cwd.mkdir()
    (cwd / "a.txt").write_text("one\n")
    page = page_of("Write", cwd, file_path=f"{cwd}/a.txt", content="two\n")
    assert (page.about, page.body) == ("a.txt", "@@ -1 +1 @@\n-one\n+two"), "it is compared with what is there"
    assert page_of("Read", cwd, file_path=f"{cwd}/sub/b.txt", limit=3).body == "file_path: sub/b.txt\nlimit: 3"
    (tmp_path / "link").symlink_to(cwd)
    assert page_of("Read", tmp_path / "link", file_path=f"{cwd}/a.txt").about == "a.txt", "the CLI says where a link leads"
    others = (
        "/etc/passwd",
        f"{cwd}/../a.txt",
        f"{cwd}/sub/../../a.txt",
        f"{cwd}/~/a.txt",
        f"{cwd}//etc/passwd",
        f"{cwd}x/a.txt",
        f"{cwd}/",
        f"{cwd}",
    )
    for path in others:
        assert (page_of("Read", cwd, file_path=path).about, page_of("Read", cwd, file_path=path).body) == (path, f"file_path: {path}")
    assert page_of("Read", Path("/"), file_path="/etc/passwd").about == "/etc/passwd"


@pytest.mark.row("threats", "a command hides in what is not seen", "shown as what it is before anybody allows it")
def test_a_command_cannot_hide_what_it_does(tmp_path: Path) -> None:
    page = page_of("Bash", tmp_path, command="rm -rf ~\recho hi \u202e s3cret \x1b[2K", description="Say\u200b hi")
    assert page.body == "rm -rf ~\\u000decho hi \\u202e [masked] \\u001b[2K"
    assert page.about == "Say\\u200b hi"
    long = page_of("Bash", tmp_path, command="\n".join(f"echo {n}" for n in range(5000)))
    assert len(long.body) < 10_000
    assert "4,8" in long.body, "it says how much is left out"
    assert "\n" not in page_of("Web\nFetch", tmp_path, url="x").title


def test_what_changes_how_a_command_is_run_stands_beside_it(tmp_path: Path) -> None:
    call = {"command": "make", "description": "Build", "run_in_background": True, "dangerouslyDisableSandbox": True, "timeout": 600_000}
    page = page_of("Bash", tmp_path, **call)
    assert (page.body, page.about) == ("make", "timeout: 600000 · run_in_background: true · dangerouslyDisableSandbox: true · Build")
    hidden = page_of("Bash", tmp_path, **(call | {"note": "x" * 5000, "description": "y" * 5000}))
    assert hidden.about.startswith("timeout: 600000 · run_in_background: true · dangerouslyDisableSandbox: true · note: x")
    plain = page_of("Bash", tmp_path, command="make", run_in_background=False, dangerouslyDisableSandbox=False, description="")
    assert plain.about == ""
    plan = page_of("ExitPlanMode", tmp_path, plan="1. Look", allowedPrompts=[{"tool": "Bash", "prompt": "run tests"}])
    assert (plan.body, plan.about) == ("1. Look", 'allowedPrompts: [{"tool":"Bash","prompt":"run tests"}]')


@pytest.mark.parametrize(
    "command",
    [
        f"echo {'x' * 9000}; rm -rf last",
        f"echo first\necho {'x' * 9000}; rm -rf last",
        f"echo first {'x' * 9000}\necho {'x' * 9000}; rm -rf last",
    ],
    ids=["one line", "a long one at the end", "nothing but long ones"],
)
def test_of_a_long_line_the_end_is_shown_too(command: str, tmp_path: Path) -> None:
    body = page_of("Bash", tmp_path, command=command).body
    assert body.startswith(command[:10])
    assert body.endswith("x; rm -rf last")
    assert len(body) < 10_000
    assert re.search(r"… \d,\d{3} more characters …", body), "it says how much is left out"


def test_of_a_long_path_and_of_much_that_is_allowed_for_the_run_the_end_is_shown_too(tmp_path: Path) -> None:
    path = f"{tmp_path}/{'./' * 400}../../etc/passwd"
    assert re.fullmatch(
        rf"{tmp_path}/.* … \d{{3}} more characters … .*/etc/passwd", page_of("Write", tmp_path, file_path=path, content="").about
    )
    rules = [{"toolName": "Bash", "ruleContent": f"echo {number} *"} for number in range(100)]
    suggestions = json.dumps([{"type": "addRules", "behavior": "allow", "rules": [*rules, {"toolName": "Bash", "ruleContent": "rm *"}]}])
    ask = PermissionAsked(ask_id="q", tool_id="t", name="Bash", input='{"command": "true"}', suggestions=suggestions)
    scope = shown(ask, cwd=str(tmp_path), mask=str).scope
    assert re.fullmatch(r"Bash\(echo 0 \*\), .* … 1,\d{3} more characters … .*, Bash\(rm \*\)", scope)


@pytest.mark.parametrize(
    "unseen", ["\u3164", "\uffa0", "\u115f", "\u034f", "\u17b4", "\u180b", "\u206e", "\ufe01", "\U000e0101", "\U0001d173"]
)
def test_letters_that_are_not_seen_are_shown_as_what_they_are(unseen: str, tmp_path: Path) -> None:
    (tmp_path / "name").write_text("old\n")
    said = f"\\u{ord(unseen):04x}" if ord(unseen) <= 0xFFFF else f"\\U{ord(unseen):08x}"
    assert page_of("Bash", tmp_path, command=f"rm na{unseen}me").body == f"rm na{said}me"


def test_a_file_that_is_there_and_is_not_compared_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "large.txt").write_text("x\n" * 50_000)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff")
    for name in ("large.txt", "picture.png"):
        body = page_of("Write", tmp_path, file_path=name, content="new\n").body
        assert body == "(What is there already is not compared with this: it is too large, or no text that can be read.)\n+new"
    long = page_of("Write", tmp_path, file_path="new.txt", content="y\n" * 50_000).body
    assert long.startswith("+y\n+y"), "nothing is there"
    gone = page_of("Edit", tmp_path, file_path="large.txt", old_string="x\n" * 50_000, new_string="").body
    assert gone.startswith("-x\n-x"), "what would be taken away is shown"
