"""Every outcome through the real CLI against a scripted model. All runs of the table are made once, some at a time, and then looked at."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import pytest

from cc_executor import cc_execute
from cc_executor.model.event import (
    ApiRetried,
    Event,
    Finished,
    LimitReached,
    ModelSwitched,
    StopRequested,
    TextWritten,
)
from cc_executor.model.outcome import OutcomeKind
from cc_executor.model.receipt import Standing
from cc_executor.runtime.leftovers import end_marked
from cc_executor.runtime.login import Login, login_of
from cc_executor.runtime.result import Result
from cc_executor.shim import records
from support.leaks import await_none
from support.runs import eventually

pytestmark = pytest.mark.usefixtures("claude_cli")
T = TypeVar("T")

ABREAST: Final = 3  # on two cores; a CLI mostly waits
SCHEMA: Final = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"], "additionalProperties": False}
ONE_RETRY: Final = {"CLAUDE_CODE_MAX_RETRIES": "1"}  # alone, the CLI asks an overloaded API for three minutes
NO_SECOND_WAY: Final = {"CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1"}
SCRIPTS: Final = Path(__file__).with_name("scripts")  # those that are of use to nobody but this table


@dataclass(frozen=True)
class Case:
    """One run, and what its receipt must say. `cure`: words of it; empty for ok. `within`: seconds from start to end."""

    script: str | None
    kind: OutcomeKind
    evidence: str
    cure: str = ""
    within: float = 50.0  # the real ones take one to four seconds on a free machine
    about: str = ""  # for the table
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    environ: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def rehearse(self) -> str | None:
        """What is rehearsed."""
        own = SCRIPTS / f"{self.script}.toml"
        return str(own) if own.is_file() else self.script


def case(
    script: str | None,
    kind: OutcomeKind,
    evidence: str,
    cure: str = "",
    *,
    within: float = 50.0,
    about: str = "",
    environ: Mapping[str, str] | None = None,
    **options: Any,
) -> Case:
    return Case(script, kind, evidence, cure, within, about, options, environ or {})


WELL: Final = "result.is_error = false"
# Those that are asked for their time come first, when the machine has least to do. Where something has to be said before a limit, it leaves
# a CLI the time that it takes for its first words on a busy machine.
CASES: Final = {
    "401": case("bad-key", OutcomeKind.AUTH, "last api_retry.error_status = 401", "ANTHROPIC_API_KEY", about="the CLI alone: 180 s"),
    "stall midway": case("stall-midway", OutcomeKind.STALLED, "limit stall = 15 s", "--stall-timeout", stall_timeout=15),
    "wall limit": case("slow-text", OutcomeKind.TIMEOUT, "limit wall = 2 s", "--timeout", timeout=2),
    "stall, pings only": case(
        "stall-pings", OutcomeKind.STALLED, "limit stall = 15 s", "--stall-timeout", about="a ping is no sign of life", stall_timeout=15
    ),
    "stall before the headers": case("stall-headers", OutcomeKind.STALLED, "limit stall = 2 s", "--stall-timeout", stall_timeout=2),
    "background task left running": case(
        "background",
        OutcomeKind.OK,
        "stop requested: linger",
        about="ended 3 s after the last word, with --linger 3; the CLI alone: 600 s",
        tools="Bash",
        linger=3,
        verify="grep -q tick background.txt && echo ticked",
    ),
    "background task, wall limit": case(
        "background", OutcomeKind.TIMEOUT, "limit wall = 20 s", "--timeout", about="also after the last word", timeout=20, tools="Bash"
    ),
    "429 for ever, wall limit": case(
        "throttled-forever",
        OutcomeKind.TIMEOUT,
        "last api_retry.error_status = 429",
        "Wait",
        about="the run's own limit bounds the CLI's 180 s of asking, and the cure is not more time",
        timeout=20,
    ),
    "success": case("hello", OutcomeKind.OK, WELL),
    "success, verified": case(
        "tour", OutcomeKind.OK, WELL, tools=["Write", "Bash"], expect="haiku.md", verify="grep -q awake haiku.md && echo found"
    ),
    "success, file written": case("write-file", OutcomeKind.OK, WELL, tools="Write", expect=["hello.txt"]),
    "file not written": case("hello", OutcomeKind.FAILED, "check failed: file never.txt", "evidence", expect=["never.txt"]),
    "verify fails": case(
        "write-file",
        OutcomeKind.FAILED,
        "(exit code 4: wrong content)",
        "evidence",
        tools="Write",
        expect=["hello.txt"],
        verify="echo wrong content >&2; exit 4",
    ),
    "denied tool": case("denied", OutcomeKind.DENIED, "denied: Bash", '--tools "Bash"', about="whatever the agent claims"),
    "403": case("forbidden", OutcomeKind.AUTH, "result.api_error_status = 403", "a login of an organisation"),
    "no credit": case("no-credit", OutcomeKind.USAGE_LIMITED, "assistant.error = billing_error", "Buy credit"),
    "404 model": case("unknown-model", OutcomeKind.FAILED, "assistant.error = model_not_found", "--model"),
    "413": case("too-large", OutcomeKind.FAILED, "result.api_error_status = 413", "Name files"),
    "prompt too long": case("too-long", OutcomeKind.FAILED, "result.terminal_reason = prompt_too_long", "Shorten the prompt"),
    "429 once": case("throttled", OutcomeKind.OK, WELL, about="each retry is seen live"),
    "429 for ever": case("throttled-forever", OutcomeKind.RATE_LIMITED, "api_error_status = 429", "Wait", environ=ONE_RETRY),
    "429 with an hour's retry-after": case(
        "throttled-for-an-hour",
        OutcomeKind.RATE_LIMITED,
        "api_error_status = 429",
        "in an hour",
        about="ends at once; nothing waits for an hour",
    ),
    "500 once": case("server-error-once", OutcomeKind.OK, WELL),
    "500 for ever": case("server-error", OutcomeKind.FAILED, "api_error_status = 500", "run it again", environ=ONE_RETRY),
    "529 for ever": case("overloaded", OutcomeKind.RATE_LIMITED, "api_error_status = 529", "--fallback-model", environ=ONE_RETRY),
    "529, with a fallback model": case("overloaded-thrice", OutcomeKind.OK, WELL, fallback_model="claude-haiku-4-5"),
    "connection refused": case(
        None,
        OutcomeKind.FAILED,
        "last api_retry.error_status = null",
        "ANTHROPIC_BASE_URL",
        environ={**ONE_RETRY, "ANTHROPIC_BASE_URL": "http://127.0.0.1:9", "ANTHROPIC_API_KEY": "sk-ant-nobody"},
    ),
    "reset midway, once": case("reset-midway", OutcomeKind.OK, WELL),
    "reset midway, for ever": case(
        "reset-forever", OutcomeKind.FAILED, "assistant.error = server_error", "Check the network", environ=ONE_RETRY
    ),
    "reset midway, no second way": case(
        "reset-forever",
        OutcomeKind.FAILED,
        "assistant.error = server_error",
        "Check the network",
        about="and without the CLI's non-streaming requests",
        environ={**ONE_RETRY, **NO_SECOND_WAY},
    ),
    "reset midway, for ever, with a fallback model": case(
        "reset-forever",
        OutcomeKind.FAILED,
        "assistant.error = server_error",
        "Check the network",
        about="which is for an overloaded API and does not help here",
        environ=ONE_RETRY,
        fallback_model="claude-haiku-4-5",
    ),
    "end of stream midway, once": case("eof-midway", OutcomeKind.OK, WELL),
    "end of stream midway, for ever": case(
        "eof-forever", OutcomeKind.FAILED, "assistant.error = server_error", "Check the network", environ=ONE_RETRY
    ),
    "end of stream midway, no second way": case(
        "eof-forever",
        OutcomeKind.FAILED,
        "assistant.error = server_error",
        "Check the network",
        about="and without the CLI's non-streaming requests",
        environ={**ONE_RETRY, **NO_SECOND_WAY},
    ),
    "end of stream midway, for ever, with a fallback model": case(
        "eof-forever",
        OutcomeKind.FAILED,
        "assistant.error = server_error",
        "Check the network",
        about="which is for an overloaded API and does not help here",
        environ=ONE_RETRY,
        fallback_model="claude-haiku-4-5",
    ),
    "cut after a whole block": case("cut-after-block", OutcomeKind.OK, WELL, about="the text is both messages together"),
    "max tokens, then more": case("max-tokens-once", OutcomeKind.OK, WELL, about="the text is both messages together"),
    "max tokens": case("max-tokens", OutcomeKind.FAILED, "max_output_tokens", "CLAUDE_CODE_MAX_OUTPUT_TOKENS"),
    "context window exceeded": case("context-window", OutcomeKind.FAILED, "stop_reason = model_context_window_exceeded", "new session"),
    "refusal": case("refusal", OutcomeKind.FAILED, "result.stop_reason = refusal", "Rephrase"),
    "schema met": case("schema", OutcomeKind.OK, WELL, schema=SCHEMA),
    "unmet schema": case("schema-unmet", OutcomeKind.SCHEMA, "result.structured_output is absent", "schema", schema=SCHEMA),
    "max turns": case("max-turns", OutcomeKind.MAX_TURNS, "terminal_reason = max_turns", "--max-turns", max_turns=2, tools="Bash"),
    "budget": case("expensive", OutcomeKind.BUDGET, "terminal_reason = budget_exhausted", "--max-cost", max_cost=0.01, tools="Bash"),
    "flood": case("flood", OutcomeKind.OK, WELL, about="5 MB, whole in the journal"),
}


@dataclass
class Seen:
    """What came of one case: live events, and the result."""

    folder: Path
    events: list[Event] = field(default_factory=list[Event])
    result: Result | None = None
    error: BaseException | None = None

    @property
    def ended(self) -> Result:
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result

    def kinds(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """Every case's end. The state folder is one for all, which is how a notebook uses it."""
    root = tmp_path_factory.mktemp("outcomes")
    seen = {name: Seen(root / str(number)) for number, name in enumerate(CASES)}
    abreast = anyio.Semaphore(ABREAST)

    async def play(name: str) -> None:
        entry, wanted = seen[name], CASES[name]
        entry.folder.mkdir()
        async with abreast:
            try:
                entry.result = await cc_execute(
                    f"Do what {name} says.",
                    cwd=entry.folder,
                    state=root / "state",
                    rehearse=wanted.rehearse,
                    environ={**os.environ, **wanted.environ},
                    on_event=entry.events.append,
                    **{"timeout": 60, **wanted.options},
                )
            except Exception as error:  # noqa: BLE001 - raised again in the test of this case
                entry.error = error

    async def play_all() -> None:
        async with anyio.create_task_group() as tasks:
            for name in CASES:
                tasks.start_soon(play, name)

    anyio.run(play_all)
    return seen


def required(wanted: Case) -> str:
    """The table's words for a case."""
    cure = f"; cure: {wanted.cure}" if wanted.cure else ""
    return f"{wanted.kind.value}{cure}{f'; {wanted.about}' if wanted.about else ''}"


@pytest.mark.timeout(400)  # the first one waits for the whole table
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.row("outcomes", name, required(wanted))) for name, wanted in CASES.items()]
)
def test_every_case_ends_as_it_should(table: dict[str, Seen], name: str, saw: Callable[[str], None]) -> None:
    wanted, receipt = CASES[name], table[name].ended.receipt
    outcome = receipt.outcome
    assert outcome.kind is wanted.kind, outcome
    found = [item for item in outcome.evidence if wanted.evidence in item]
    assert found, outcome.evidence
    saw(f"{outcome.kind.value}, {receipt.times.elapsed:.1f} s; {found[0][:60]}")
    assert outcome.summary.endswith(".")
    if outcome.ok:
        assert outcome.cure == ""
    else:
        assert wanted.cure
        assert wanted.cure in outcome.cure, outcome.cure
        assert outcome.cure[0].isupper()
        assert outcome.cure.endswith(".")
    assert receipt.times.elapsed < wanted.within
    assert receipt.is_intact
    assert receipt.rehearsed == wanted.rehearse
    assert receipt.cost in {None, 0.0}
    assert receipt.exit.survivors == 0


def test_after_the_table_no_process_of_it_is_left(table: dict[str, Seen]) -> None:
    assert not await_none([table["success"].folder.parent])


def test_hello_gives_the_text_and_the_events_live(table: dict[str, Seen]) -> None:
    hello = table["success"]
    assert hello.ended.text.startswith("Hello! This is a **rehearsal**")
    (finished,) = hello.kinds(Finished)
    assert finished.text == hello.ended.text
    assert hello.ended.receipt.session_id
    assert hello.ended.receipt.standing is Standing.CLAIMED


def test_files_that_were_asked_for_are_verified_with_their_digests(table: dict[str, Seen]) -> None:
    tour = table["success, verified"].ended
    assert tour.receipt.standing is Standing.VERIFIED
    assert [(check.what, check.passed) for check in tour.receipt.checks] == [
        ("file haiku.md", True),
        ("grep -q awake haiku.md && echo found", True),
    ]
    assert tour.receipt.checks[1].detail == "exit code 0: found"
    (haiku,) = tour.files
    assert haiku.path == str(table["success, verified"].folder / "haiku.md")
    assert haiku.before is None
    assert haiku.size == (table["success, verified"].folder / "haiku.md").stat().st_size

    written = table["success, file written"].ended
    assert written.receipt.standing is Standing.VERIFIED
    assert (table["success, file written"].folder / "hello.txt").read_text() == "Hello from a rehearsal.\n"


@pytest.mark.parametrize("name", ["file not written", "verify fails"])
def test_a_success_that_the_checks_contradict_is_none(table: dict[str, Seen], name: str) -> None:
    receipt = table[name].ended.receipt
    assert receipt.standing is Standing.CONTRADICTED
    assert receipt.exit.code == 0
    assert any(check.passed is False for check in receipt.checks)


def test_a_denied_tool_is_named_and_never_ran(table: dict[str, Seen]) -> None:
    denied = table["denied tool"]
    assert denied.ended.receipt.denials == ("Bash",)
    assert '--tools "Bash"' in denied.ended.receipt.outcome.cure
    assert "I have run the command" in denied.ended.text  # which is what it claims
    assert not (denied.folder / "denied.txt").exists()


async def test_a_bad_key_is_told_within_five_seconds(tmp_path: Path) -> None:
    # By itself, not beside fifty others; and once more when the machine had something else to do.
    receipts = [(await cc_execute("Hello", cwd=tmp_path, rehearse="bad-key")).receipt]
    while receipts[-1].times.elapsed >= 5 and len(receipts) < 3:
        receipts.append((await cc_execute("Hello", cwd=tmp_path, rehearse="bad-key")).receipt)
    receipt = receipts[-1]
    assert receipt.times.elapsed < 5, "on a free machine in 1 s; the CLI alone: 180 s"
    assert receipt.exit.stopped_for == "auth"
    assert "ANTHROPIC_API_KEY" in receipt.outcome.cure


@pytest.mark.parametrize("name", ["429 once", "500 once", "reset midway, once", "end of stream midway, once"])
def test_what_the_agent_gets_over_by_itself_is_ok_and_was_seen_live(table: dict[str, Seen], name: str) -> None:
    seen = table[name]
    assert seen.ended.receipt.retries >= 1
    retried = seen.kinds(ApiRetried)
    assert len(retried) == seen.ended.receipt.retries
    assert seen.events.index(retried[0]) < seen.events.index(seen.kinds(Finished)[0])


def test_a_text_that_was_cut_and_begun_anew_is_there_once(table: dict[str, Seen]) -> None:
    assert table["reset midway, once"].ended.text == "This sentence is cut in its middle the first time, and whole the second time."


def test_structured_output_is_python_data(table: dict[str, Seen]) -> None:
    data = table["schema met"].ended.data
    assert isinstance(data["answer"], int)
    assert data.keys() == {"answer"}
    assert table["unmet schema"].ended.data is None


def test_turns_are_counted(table: dict[str, Seen]) -> None:
    assert "--max-turns" in table["max turns"].ended.receipt.outcome.cure


@pytest.mark.parametrize("name", ["stall midway", "stall before the headers", "stall, pings only", "wall limit"])
def test_a_limit_ends_the_run_soon_after_it_is_reached(table: dict[str, Seen], name: str) -> None:
    seen, options = table[name], CASES[name].options
    (limit,) = seen.kinds(LimitReached)
    assert limit.seconds == options.get("stall_timeout", options.get("timeout"))
    assert seen.ended.receipt.times.elapsed - limit.t < 8, "the ladder takes 3 s at most"


def test_a_flood_is_whole_in_the_journal(table: dict[str, Seen]) -> None:
    flood = table["flood"].ended
    stdout = flood.folder / records.STDOUT
    assert flood.receipt.journal[records.STDOUT].bytes == stdout.stat().st_size > 5_000_000
    assert flood.receipt.journal[records.STDOUT].dropped == 0
    assert stdout.read_bytes().count(b"flood line 80000\\n") >= 1
    assert flood.text.startswith("the quick brown fox jumps over the lazy dog in flood line 1\n")
    assert flood.text.rstrip().endswith("flood line 80000")
    assert len(flood.text) < 40_000, "a receipt travels with its notebook"


@pytest.mark.parametrize("name", ["stall midway", "stall, pings only"])
def test_what_came_before_a_stall_is_kept(table: dict[str, Seen], name: str) -> None:
    assert "".join(event.text for event in table[name].kinds(TextWritten)).startswith(
        "I begin to answer, and in the middle of the sentence"
    )


@pytest.mark.row("outcomes", "429 for ever, wall limit", "each attempt is told live, with its wait")
def test_every_wait_for_the_api_is_told_live(table: dict[str, Seen], saw: Callable[[str], None]) -> None:
    retries = table["429 for ever, wall limit"].kinds(ApiRetried)
    assert [retry.attempt for retry in retries] == list(range(1, len(retries) + 1))
    assert retries
    assert all(retry.status == 429 and retry.delay > 0 for retry in retries)
    saw(f"{len(retries)} attempts told")


def test_the_api_s_silence_until_a_limit_is_said(table: dict[str, Seen]) -> None:
    assert "had answered nothing but errors" in table["429 for ever, wall limit"].ended.receipt.outcome.summary
    assert "had answered" not in table["wall limit"].ended.receipt.outcome.summary


def test_a_second_model_is_told(table: dict[str, Seen]) -> None:
    (switched,) = table["529, with a fallback model"].kinds(ModelSwitched)
    assert switched.model == "claude-haiku-4-5"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cut after a whole block", "The first half is whole, and the second half is told anew."),
        ("max tokens, then more", "The first half fills a message, and the second half another."),
        ("end of stream midway, once", "This sentence ends in its middle the first time, and is whole the second time."),
    ],
)
def test_an_answer_over_several_messages_is_whole(table: dict[str, Seen], name: str, text: str) -> None:
    assert table[name].ended.text == table[name].ended.receipt.text == text


def test_a_command_in_the_background_ends_soon_after_the_last_word(table: dict[str, Seen]) -> None:
    background = table["background task left running"]
    receipt = background.ended.receipt
    ticks = (background.folder / "background.txt").read_text()
    assert ticks.startswith("tick 1\n"), "it ran, and the agent had its say meanwhile"
    assert len(background.kinds(Finished)) == 1
    assert background.ended.text == "The command goes on in the background; I am done."
    assert receipt.standing is Standing.VERIFIED
    assert receipt.exit.stopped_for == "linger"
    assert any("background.txt" in command for command in receipt.exit.left_behind)
    assert "--linger" in receipt.outcome.summary
    (stop,) = background.kinds(StopRequested)
    assert background.events.index(background.kinds(Finished)[0]) < background.events.index(stop)
    assert receipt.times.elapsed - stop.t < 8, "the ladder takes 3 s at most"
    assert not await_none([background.folder], budget=0)


def test_a_wall_limit_holds_after_the_last_word_too(table: dict[str, Seen]) -> None:
    background = table["background task, wall limit"]
    assert background.kinds(Finished)
    assert background.ended.receipt.times.elapsed < 50, "its command alone takes five minutes"
    assert not await_none([background.folder], budget=0)


@pytest.mark.row("outcomes", "background task kept", "ok; with --keep-background it outlives the agent's --linger, is listed, and lives on")
async def test_a_command_that_shall_be_kept_outlives_the_agent_s_linger(tmp_path: Path, saw: Callable[[str], None]) -> None:
    result = await cc_execute(
        "Do it.", cwd=tmp_path, rehearse="background", tools="Bash", linger=1, keep_background=True, timeout=60, environ=os.environ
    )
    receipt = result.receipt
    try:
        saw(f"{receipt.outcome.kind.value}, {receipt.times.elapsed:.1f} s")
        assert receipt.outcome.ok, receipt.outcome
        assert receipt.exit.stopped_for == "linger"
        assert any("background.txt" in command for command in receipt.exit.left_behind)
        assert receipt.exit.survivors >= 1
        assert re.search("lives? on", receipt.outcome.summary)
        ticks = tmp_path / "background.txt"
        await eventually(ticks.exists)  # the agent may be faster than what it has started
        before = ticks.stat().st_size
        await eventually(lambda: ticks.stat().st_size > before)
    finally:
        end_marked(result.folder.name)


# --- without a script ---------------------------------------------------------------------------------------------


@pytest.fixture
def nobody_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A home in which nobody has logged in, and an API that nobody serves."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return {**os.environ, "HOME": str(home), "ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}


@pytest.mark.row("outcomes", "no login", "auth within 5 s; cure: one command")
async def test_nobody_logged_in_is_told_within_five_seconds_with_one_command(
    nobody_home: dict[str, str], tmp_path: Path, claude_cli: Path, saw: Callable[[str], None]
) -> None:
    result = await cc_execute("Hello", cwd=tmp_path, environ=nobody_home)
    for _ in range(2):  # when the machine had something else to do
        if result.receipt.times.elapsed >= 5:
            result = await cc_execute("Hello", cwd=tmp_path, environ=nobody_home)
    outcome = result.receipt.outcome
    saw(f"{outcome.kind.value}, {result.receipt.times.elapsed:.1f} s; {outcome.evidence[0]}")
    assert outcome.kind is OutcomeKind.AUTH, outcome
    assert result.receipt.times.elapsed < 5, "on a free machine in 1 s"
    assert "`claude`" in outcome.cure
    assert outcome.cure.count("`") == 2, "one command"
    assert outcome.evidence
    assert login_of(str(claude_cli), environ=nobody_home) == Login(logged_in=False, method="none")
