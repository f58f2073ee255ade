"""Every outcome through the real CLI against a scripted model. All runs of the table are made once, some at a time, and then looked at."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from cc_executor import cc_execute
from cc_executor.model.event import ApiRetried, Event, Finished, LimitReached
from cc_executor.model.outcome import OutcomeKind
from cc_executor.model.receipt import Standing
from cc_executor.model.result import Result
from cc_executor.runtime.login import Login, login_of
from cc_executor.shim import records
from support.leaks import await_none

pytestmark = pytest.mark.usefixtures("claude_cli")

ABREAST: Final = 3  # on two cores; a CLI mostly waits
SCHEMA: Final = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"], "additionalProperties": False}
ONE_RETRY: Final = {"CLAUDE_CODE_MAX_RETRIES": "1"}  # alone, the CLI asks an overloaded API for three minutes


@dataclass(frozen=True)
class Case:
    """One run: the script that is rehearsed, the options of the call, and what is added to the environment."""

    script: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    environ: Mapping[str, str] = field(default_factory=dict[str, str])


def case(script: str, environ: Mapping[str, str] | None = None, **options: Any) -> Case:
    return Case(script, options, environ or {})


# Those that are asked for their time come first, when the machine has least to do.
CASES: Final = {
    "bad-key": case("bad-key"),
    "stall-midway": case("stall-midway", stall_timeout=2),
    "timeout": case("slow-text", timeout=2),
    "background": case("background", timeout=8, tools="Bash"),
    "hello": case("hello"),
    "tour": case("tour", tools=["Write", "Bash"], expect="haiku.md", verify="grep -q awake haiku.md && echo found"),
    "write-file": case("write-file", tools="Write", expect=["hello.txt"]),
    "file not written": case("hello", expect=["never.txt"]),
    "verify fails": case("write-file", tools="Write", expect=["hello.txt"], verify="echo wrong content >&2; exit 4"),
    "denied": case("denied"),
    "forbidden": case("forbidden"),
    "no-credit": case("no-credit"),
    "unknown-model": case("unknown-model"),
    "throttled": case("throttled"),
    "throttled-forever": case("throttled-forever", environ=ONE_RETRY),
    "overloaded": case("overloaded", environ=ONE_RETRY),
    "server-error-once": case("server-error-once"),
    "schema": case("schema", schema=SCHEMA),
    "schema-unmet": case("schema-unmet", schema=SCHEMA),
    "max-turns": case("max-turns", max_turns=2, tools="Bash"),
    "max-tokens": case("max-tokens"),
    "refusal": case("refusal"),
    "reset-midway": case("reset-midway"),
    "flood": case("flood"),
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

    def kinds(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """Every case's end. The state folder is one for all, which is how a notebook uses it."""
    root = tmp_path_factory.mktemp("outcomes")
    seen = {name: Seen(root / name) for name in CASES}
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
                    rehearse=wanted.script,
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


EXPECTED: Final[dict[str, tuple[OutcomeKind, str]]] = {
    "bad-key": (OutcomeKind.AUTH, "last api_retry.error_status = 401"),
    "stall-midway": (OutcomeKind.STALLED, "limit stall = 2 s"),
    "timeout": (OutcomeKind.TIMEOUT, "limit wall = 2 s"),
    "background": (OutcomeKind.TIMEOUT, "limit wall = 8 s"),
    "hello": (OutcomeKind.OK, "result.is_error = false"),
    "tour": (OutcomeKind.OK, "result.is_error = false"),
    "write-file": (OutcomeKind.OK, "result.is_error = false"),
    "file not written": (OutcomeKind.FAILED, "check failed: file never.txt"),
    "verify fails": (OutcomeKind.FAILED, "(exit code 4: wrong content)"),
    "denied": (OutcomeKind.DENIED, "denied: Bash"),
    "forbidden": (OutcomeKind.AUTH, "result.api_error_status = 403"),
    "no-credit": (OutcomeKind.USAGE_LIMITED, "assistant.error = billing_error"),
    "unknown-model": (OutcomeKind.FAILED, "assistant.error = model_not_found"),
    "throttled": (OutcomeKind.OK, "result.is_error = false"),
    "throttled-forever": (OutcomeKind.RATE_LIMITED, "api_error_status = 429"),
    "overloaded": (OutcomeKind.RATE_LIMITED, "api_error_status = 529"),
    "server-error-once": (OutcomeKind.OK, "result.is_error = false"),
    "schema": (OutcomeKind.OK, "result.is_error = false"),
    "schema-unmet": (OutcomeKind.SCHEMA, "result.structured_output is absent"),
    "max-turns": (OutcomeKind.MAX_TURNS, "terminal_reason = max_turns"),
    "max-tokens": (OutcomeKind.FAILED, "max_output_tokens"),
    "refusal": (OutcomeKind.FAILED, "result.stop_reason = refusal"),
    "reset-midway": (OutcomeKind.OK, "result.is_error = false"),
    "flood": (OutcomeKind.OK, "result.is_error = false"),
}


def test_the_table_is_whole() -> None:
    assert EXPECTED.keys() == CASES.keys()


@pytest.mark.timeout(180)  # the first one waits for the whole table
@pytest.mark.parametrize("name", CASES)
def test_every_script_ends_as_it_should(table: dict[str, Seen], name: str) -> None:
    kind, evidence = EXPECTED[name]
    receipt = table[name].ended.receipt
    outcome = receipt.outcome
    assert outcome.kind is kind, outcome
    assert any(evidence in item for item in outcome.evidence), outcome.evidence
    assert outcome.summary.endswith(".")
    if outcome.ok:
        assert outcome.cure == ""
    else:
        assert outcome.cure[0].isupper()
        assert outcome.cure.endswith(".")
    assert receipt.is_intact
    assert receipt.rehearsed == CASES[name].script
    assert receipt.cost in {None, 0.0}
    assert receipt.exit.survivors == 0


def test_after_the_table_no_process_of_it_is_left(table: dict[str, Seen]) -> None:
    assert not await_none([table["hello"].folder.parent])


def test_hello_gives_the_text_and_the_events_live(table: dict[str, Seen]) -> None:
    hello = table["hello"]
    assert hello.ended.text.startswith("Hello! This is a **rehearsal**")
    (finished,) = hello.kinds(Finished)
    assert isinstance(finished, Finished)
    assert finished.text == hello.ended.text
    assert hello.ended.receipt.session_id
    assert hello.ended.receipt.standing is Standing.CLAIMED


def test_files_that_were_asked_for_are_verified_with_their_digests(table: dict[str, Seen]) -> None:
    tour = table["tour"].ended
    assert tour.receipt.standing is Standing.VERIFIED
    assert [(check.what, check.passed) for check in tour.receipt.checks] == [
        ("file haiku.md", True),
        ("grep -q awake haiku.md && echo found", True),
    ]
    assert tour.receipt.checks[1].detail == "exit code 0: found"
    (haiku,) = tour.files
    assert haiku.path == str(table["tour"].folder / "haiku.md")
    assert haiku.before is None
    assert haiku.size == (table["tour"].folder / "haiku.md").stat().st_size

    written = table["write-file"].ended
    assert written.receipt.standing is Standing.VERIFIED
    assert (table["write-file"].folder / "hello.txt").read_text() == "Hello from a rehearsal.\n"


@pytest.mark.parametrize("name", ["file not written", "verify fails"])
def test_a_success_that_the_checks_contradict_is_none(table: dict[str, Seen], name: str) -> None:
    receipt = table[name].ended.receipt
    assert receipt.standing is Standing.CONTRADICTED
    assert receipt.exit.code == 0
    assert any(check.passed is False for check in receipt.checks)


def test_a_denied_tool_is_named_and_never_ran(table: dict[str, Seen]) -> None:
    denied = table["denied"]
    assert denied.ended.receipt.denials == ("Bash",)
    assert '--tools "Bash"' in denied.ended.receipt.outcome.cure
    assert "I have run the command" in denied.ended.text  # which is what it claims
    assert not (denied.folder / "denied.txt").exists()


def test_a_bad_key_is_told_within_five_seconds(table: dict[str, Seen]) -> None:
    receipt = table["bad-key"].ended.receipt
    assert receipt.times.elapsed < 5
    assert receipt.exit.stopped_for == "auth"
    assert "ANTHROPIC_API_KEY" in receipt.outcome.cure


@pytest.mark.parametrize("name", ["throttled", "server-error-once", "reset-midway"])
def test_what_the_agent_gets_over_by_itself_is_ok_and_was_seen_live(table: dict[str, Seen], name: str) -> None:
    seen = table[name]
    assert seen.ended.receipt.retries >= 1
    retried = seen.kinds(ApiRetried)
    assert len(retried) == seen.ended.receipt.retries
    assert seen.events.index(retried[0]) < seen.events.index(seen.kinds(Finished)[0])


def test_a_text_that_was_cut_and_begun_anew_is_there_once(table: dict[str, Seen]) -> None:
    assert table["reset-midway"].ended.text == "This sentence is cut in its middle the first time, and whole the second time."


def test_structured_output_is_python_data(table: dict[str, Seen]) -> None:
    data = table["schema"].ended.data
    assert isinstance(data["answer"], int)
    assert data.keys() == {"answer"}
    assert table["schema-unmet"].ended.data is None


def test_turns_are_counted(table: dict[str, Seen]) -> None:
    assert "--max-turns" in table["max-turns"].ended.receipt.outcome.cure


@pytest.mark.parametrize("name", ["stall-midway", "timeout"])
def test_a_limit_ends_the_run_soon_after_it_is_reached(table: dict[str, Seen], name: str) -> None:
    seen = table[name]
    (limit,) = seen.kinds(LimitReached)
    assert isinstance(limit, LimitReached)
    assert limit.seconds == 2
    assert seen.ended.receipt.times.elapsed - limit.t < 4, "the ladder takes 3 s at most"


def test_a_flood_is_whole_in_the_journal(table: dict[str, Seen]) -> None:
    flood = table["flood"].ended
    stdout = flood.folder / records.STDOUT
    assert flood.receipt.journal[records.STDOUT].bytes == stdout.stat().st_size > 5_000_000
    assert flood.receipt.journal[records.STDOUT].dropped == 0
    assert stdout.read_bytes().count(b"flood line 80000\\n") >= 1
    assert flood.text.startswith("the quick brown fox jumps over the lazy dog in flood line 1\n")
    assert flood.text.rstrip().endswith("flood line 80000")
    assert len(flood.text) < 40_000, "a receipt travels with its notebook"


def test_a_command_in_the_background_ends_with_its_run(table: dict[str, Seen]) -> None:
    background = table["background"]
    ticks = (background.folder / "background.txt").read_text()
    assert ticks.startswith("tick 1\n"), "it ran, and the agent had its say meanwhile"
    assert background.kinds(Finished)
    assert background.ended.text == "The command goes on in the background; I am done."
    assert background.ended.receipt.times.elapsed < 14, "its command alone takes five minutes"
    assert not await_none([background.folder], budget=0)


# --- without a script ---------------------------------------------------------------------------------------------


@pytest.fixture
def nobody_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A home in which nobody has logged in, and an API that nobody serves."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return {**os.environ, "HOME": str(home), "ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}


async def test_nobody_logged_in_is_told_within_five_seconds_with_one_command(
    nobody_home: dict[str, str], tmp_path: Path, claude_cli: Path
) -> None:
    result = await cc_execute("Hello", cwd=tmp_path, environ=nobody_home)
    outcome = result.receipt.outcome
    assert outcome.kind is OutcomeKind.AUTH, outcome
    assert result.receipt.times.elapsed < 5
    assert "`claude`" in outcome.cure
    assert outcome.cure.count("`") == 2, "one command"
    assert outcome.evidence
    assert login_of(str(claude_cli), environ=nobody_home) == Login(logged_in=False, method="none")
