from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from cc_executor.model.event import (
    AgentFailed,
    Answered,
    ApiRetried,
    Denial,
    Event,
    Finished,
    Leftover,
    LimitReached,
    MessageStarted,
    PermissionAsked,
    RateLimited,
    SessionOpened,
    StderrWritten,
    StopRequested,
    TaskChanged,
    TextWritten,
    Usage,
)
from cc_executor.model.exit import ExitFacts
from cc_executor.model.fold import advance_all
from cc_executor.model.outcome import Outcome, OutcomeKind
from cc_executor.model.receipt import Check
from cc_executor.model.request import Limits, RunRequest
from cc_executor.model.state import RunState
from cc_executor.policy.verdict import judge
from support.recordings import CLAUDE, FOLDER, Recording, events_of

# Every recording of Claude Code that has an output, by the outcome that its exit status and events must give. TIMEOUT in INDEX.md is our own clock.
TABLE: Final[dict[str, str]] = {
    "auth": """
        03d-403 03i-401-persistent 04f-401-max-retries-0 04g-401-max-retries-1 13a-no-key 13a-v329-no-key 16-401 16-403 16-v329-401
        16-v329-403
    """,
    "budget": """
        03b-max-budget 03b2-max-budget-single 16-max-budget 16-v329-max-budget
    """,
    "cancelled": """
        05a-sigint-midstream 05d-sigint-in-bash 05i-sigint-group-in-bash 05o-v329-sigint-in-bash 10e-interrupt-with-pending-permission
        10k-sigint-bidi
    """,
    "crashed": """
        05b-sigterm-midstream 05c-sigkill-midstream 05c2-sighup-midstream 05e-sigterm-in-bash 05f-sigkill-in-bash
        05g-sigkill-group-in-bash 05h-sigterm-group-in-bash 05m-v329-sigint-midstream 05n-v329-sigterm-midstream 05p-v329-sigterm-in-bash
        05q-v329-sigkill-in-bash 06e-sigterm-while-stopped 10i2-unknown-type 10l-sigterm-bidi 17b-text-ok
    """,
    "denied": """
        02d-acceptEdits 02f-default-denied 02g-dontAsk 10a-can-use-tool 10f-stdin-eof-with-pending-permission 12a-hooks-settings
        12b-hooks-settings-no-include-flag 12e-hook-callbacks 19a-v329-permission-denied-event
    """,
    "failed": """
        02-tools-bypass 02c-permmode-bypass-root 03e-400-prompt-too-long 03e2-413 03e4-404-model 03m-conn-refused 04e-rst-before-headers
        04i-stop-max-tokens 04j-stop-refusal 04k-stop-context-window 04m-stall-headers-API_TIMEOUT_MS 06f-sigstop320-midstream
        07e-no-prompt-devnull 07g-stdin-11MB 07g-stdin-30MB 07h-argv-prompt-leading-dash 10i-bad-json 10i3-user-bad 10i4-truncated-json
        15b-compact 16-400-too-long 16-500 16-conn-refused 16-empty-200 16-eof-mid-nofallback 16-refusal 16-rst-mid-nofallback
        16-sse-error-mid-nofallback 16-stall-headers-API_TIMEOUT_MS 16-stop-max-tokens 16-v329-400-too-long 16-v329-500
        16-v329-conn-refused 16-v329-empty-200 16-v329-eof-mid-nofallback 16-v329-refusal 16-v329-rst-mid-nofallback
        16-v329-stall-headers-API_TIMEOUT_MS 16-v329-stop-max-tokens
    """,
    "max_turns": """
        03a-max-turns 16-max-turns 16-v329-max-turns
    """,
    "ok": """
        01-success-text 02b-tools-bypass-sandbox 02e-allowedTools 03f-429-once-then-ok 03g-529-once-then-ok 03h-500-once-then-ok
        03p-stall-midstream 03q-stall-midstream-pings 04a-rst-midway-then-ok 04b-rst-midway-always 04c-eof-midway-always
        04d-sse-error-overloaded-midway 04d2-sse-error-api-midway 04l-529-fallback-model 06a-sigstop10-midstream
        06b-sigstop10-in-bash-cli-group-only 06c-sigstop10-in-bash-whole-tree 06d-sigstop-tree-longer-than-bash-timeout
        07a-stdin-open-pipe-argv-prompt 07b-prompt-by-stdin 07c-prompt-argv-and-stdin 07f-argv-131071 07g-stdin-1MB 07g-stdin-9MB
        07i-argv-prompt-leading-dash-after-- 08c-read-image 10b-interrupt-midstream 10c-resume-after-interrupt 10d-interrupt-in-bash
        10g-stdin-eof-midstream 10h-control-requests 10j-no-initialize-two-users-then-eof 10m-v329-can-use-tool-interrupt-state
        12c-hooks-bare 12d-hooks-safe-mode 13b-json-schema-ok 13b-v329-json-schema-ok 13d-bash-background 13d-v329-bash-background
        13e-bash-background-endless-ceiling3s 13f-v329-bash-background-endless-default 13g-bash-background-session-state
        13g-v329-bash-background-session-state 14a-subagent 14a-v329-subagent 14b-ratelimit-headers 14b-v329-ratelimit-headers
        14c-unknown-tool-and-bad-json 14c-v329-unknown-tool-and-bad-json 14d-ratelimit-event-subscriber
        14d-v329-ratelimit-event-subscriber 15a-turn1 15c-compact-bidi 16-rst-mid-fallback 16-stop-pause_turn 16-v329-rst-mid-fallback
        16-v329-stop-pause_turn 17c-json-ok 18b-surrogate-nul
    """,
    "rate_limited": """
        03j-429-persistent-retryafter1 03k-429-persistent-nohdr 03l-529-persistent 03n-429-retryafter-3600 04h-429-max-retries-1 16-429
        16-529 16-v329-429 16-v329-529 16-v329-sse-error-mid-nofallback
    """,
    "schema": """
        13c-json-schema-invalid-then-none 13c-v329-json-schema-invalid-then-none
    """,
    "timeout": """
        03c-401 03o-stall-headers 04n-stall-mid-idle-timeout-env 07d-prompt-by-stdin-never-closed
        13e-v329-bash-background-endless-ceiling3s
    """,
    "usage_limited": """
        03e3-400-credit 14e-ratelimit-rejected-subscriber 14e-v329-ratelimit-rejected-subscriber
    """,
}  # fmt: skip

EXPECTED: Final = {name: OutcomeKind(kind) for kind, names in TABLE.items() for name in names.split()}
SIGNALS: Final = {-9: "SIGKILL", -15: "SIGTERM"}


def facts(*, code: int | None = 0, signal: str | None = None, **more: Any) -> ExitFacts:
    if signal is not None:
        code = None
    return ExitFacts(run_id="r", started_at=0.0, ended_at=1.0, elapsed=1.0, active=1.0, code=code, signal=signal, **more)


def facts_of(recording: Recording) -> ExitFacts:
    code = recording.meta["rc"]
    if code == "TIMEOUT":
        return facts(signal="SIGKILL", stop_reason="timeout")
    return facts(code=code) if code >= 0 else facts(signal=SIGNALS[code])


def request(**fields: Any) -> RunRequest:
    return RunRequest.model_validate({"prompt": "do it", "cwd": "/tmp", **fields})


def request_of(recording: Recording) -> RunRequest:
    argv = recording.meta["argv"]
    return request(output_schema={} if "--json-schema" in argv else None, resume="s" if "--resume" in argv else None)


def judged(recording: Recording, **changes: Any) -> Outcome:
    events: list[Event] = [*events_of(recording.name), StderrWritten(text=recording.meta["stderr"])]
    given_: dict[str, Any] = {"request": request_of(recording), "exit": facts_of(recording)} | changes
    return told(judge(advance_all(RunState(), events), **given_))


def told(outcome: Outcome) -> Outcome:
    """An outcome with its evidence and, unless all is well, what can be done."""
    assert outcome.evidence
    assert outcome.ok or outcome.cure.endswith("."), outcome
    return outcome


def run(*events: Event, request_: RunRequest | None = None, exit_: ExitFacts | None = None, checks: tuple[Check, ...] = ()) -> Outcome:
    opened = (
        SessionOpened(session_id="s", version="2.1.329"),
        MessageStarted(message_id="A"),
        TextWritten(block="A:0", text="x", whole=True),
    )
    return told(judge(advance_all(RunState(), [*opened, *events]), request=request_ or request(), exit=exit_ or facts(), checks=checks))


def done(**fields: Any) -> Finished:
    said: dict[str, Any] = {
        "subtype": "success",
        "is_error": False,
        "text": "x",
        "terminal_reason": "completed",
        "usage": Usage(output_tokens=1),
    }
    said |= fields
    return Finished(**said)


# --- the recordings ---------------------------------------------------------------------------------------------------


def test_the_table_has_every_recording() -> None:
    assert set(EXPECTED) == {recording.name for recording in CLAUDE if (FOLDER / f"{recording.name}.meta.json").exists()}
    assert len(EXPECTED) >= 160


@pytest.mark.parametrize("name", EXPECTED)
def test_the_outcome_of_a_recording(name: str) -> None:
    outcome = judged(Recording(name))
    assert outcome.kind is EXPECTED[name], outcome
    assert outcome.summary.endswith(".")
    assert all(len(item) <= 300 and "\n" not in item for item in outcome.evidence)


@pytest.mark.parametrize("name", EXPECTED)
def test_without_an_exit_record_nothing_is_known(name: str) -> None:
    assert judged(Recording(name), exit=None).kind is OutcomeKind.LOST


def test_what_the_agent_said_last_is_kept_where_nobody_saw_the_end() -> None:
    state = advance_all(RunState(), [done()])
    assert told(judge(state, request=request(), exit=None)).evidence == ("no exit record", "result.is_error = false")


@pytest.mark.parametrize("name", [name for name, kind in EXPECTED.items() if kind is OutcomeKind.OK])
def test_success_needs_its_last_line_its_schema_and_its_checks(name: str) -> None:
    recording = Recording(name)
    cut = [event for event in events_of(name) if not isinstance(event, Finished)]
    assert judge(advance_all(RunState(), cut), request=request(), exit=facts()).kind is OutcomeKind.CRASHED
    if "json-schema" not in name:
        assert judged(recording, request=request(output_schema={"type": "object"})).kind is OutcomeKind.SCHEMA
    for passed in (False, None):
        outcome = judged(
            recording, checks=(Check(what="pytest", passed=True), Check(what="make lint", passed=passed, detail="exit code 2"))
        )
        assert outcome.kind is OutcomeKind.FAILED
        assert outcome.evidence == (f"check {'failed' if passed is False else 'not made'}: make lint (exit code 2)",)
        assert ("failed" if passed is False else "could not be made") in outcome.summary
    assert judged(recording, checks=(Check(what="pytest", passed=True),)).ok
    bad = judged(recording, exit=facts(code=1))
    assert (bad.kind, bad.summary, bad.evidence[0]) == (
        OutcomeKind.FAILED, "The agent reported success and ended with exit code 1.", "exit code = 1",
    )  # fmt: skip
    killed = judged(recording, exit=facts(signal="SIGSEGV"))
    assert (killed.kind, killed.evidence[0]) == (OutcomeKind.CRASHED, "signal = SIGSEGV")
    assert "SIGSEGV, which did not come from us" in killed.summary
    for reason in ("cancel", "timeout", "stalled", "auth", "budget", "interrupt", "kernel_exit", "something_new"):
        assert not judged(recording, exit=facts(stop_reason=reason)).ok


@pytest.mark.parametrize("name", [name for name, kind in EXPECTED.items() if kind is not OutcomeKind.OK])
def test_a_passed_check_heals_nothing_and_a_failed_one_hides_nothing(name: str) -> None:
    for passed in (True, False):
        assert judged(Recording(name), checks=(Check(what="pytest", passed=passed),)).kind is EXPECTED[name]


# --- we ended it ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "kind"),
    [("cancel", "cancelled"), ("interrupt", "cancelled"), ("kernel_exit", "cancelled"), ("timeout", "timeout"), ("stalled", "stalled"), ("auth", "auth"),
     ("budget", "budget"), ("unheard_of", "cancelled")],
)  # fmt: skip
def test_a_stop_request_decides_whatever_the_agent_said_then(reason: str, kind: str) -> None:
    interrupted = Finished(subtype="error_during_execution", is_error=True, terminal_reason="aborted_tools")
    for events in ((), (interrupted,), (done(),)):
        stop = StopRequested(reason=reason, by="cell")
        by_record = run(*events, stop, exit_=facts(code=143))
        by_exit = run(*events, exit_=facts(code=143, stop_reason=reason))
        assert by_record.kind.value == by_exit.kind.value == kind
        assert by_record.evidence[:2] == (f"stop requested: {reason}", "by cell")


def test_a_limit_and_the_last_retry_are_evidence_of_the_stop() -> None:
    retry = ApiRetried(attempt=1, max_attempts=10, delay=0.5, status=401, error="authentication_failed")
    outcome = run(retry, LimitReached(limit="wall", seconds=60.0), StopRequested(reason="timeout"), exit_=facts(signal="SIGTERM"))
    assert outcome.evidence == ("stop requested: timeout", "limit wall = 60 s", "last api_retry.error_status = 401", "signal = SIGTERM")


@pytest.mark.parametrize(
    ("status", "cure"), [(429, "Wait"), (529, "--fallback-model"), (500, "network"), (None, "network")], ids=["429", "529", "500", "none"]
)
@pytest.mark.parametrize("reason", ["timeout", "stalled"])
def test_a_limit_while_the_api_has_said_nothing_but_errors_is_not_cured_by_more_time(reason: str, status: int | None, cure: str) -> None:
    retry = ApiRetried(attempt=3, max_attempts=10, delay=30.0, status=status)
    stop = StopRequested(reason=reason)
    unheard = judge(
        advance_all(RunState(), [SessionOpened(session_id="s"), retry, stop]), request=request(), exit=facts(stop_reason=reason)
    )
    assert ", and the API had answered nothing but errors" in unheard.summary
    assert ".," not in unheard.summary
    assert cure in unheard.cure
    heard = run(retry, stop, exit_=facts(stop_reason=reason))
    assert heard.kind is unheard.kind
    assert "nothing but errors" not in heard.summary


@pytest.mark.parametrize("reason", ["cancel", "auth"])
def test_who_was_stopped_for_another_reason_is_told_that_one_alone(reason: str) -> None:
    retry = ApiRetried(attempt=1, max_attempts=10, delay=0.5, status=401)
    unheard = judge(advance_all(RunState(), [retry]), request=request(), exit=facts(stop_reason=reason))
    heard = run(exit_=facts(stop_reason=reason))
    assert (unheard.summary, unheard.cure) == (heard.summary, heard.cure)


def test_an_agent_that_lingered_is_judged_by_its_last_word() -> None:
    stop = StopRequested(reason="linger")
    assert run(done(), stop, exit_=facts(code=143, stop_reason="linger")).ok
    assert run(done(), stop, exit_=facts(signal="SIGKILL", stop_reason="linger")).ok
    assert run(stop, exit_=facts(signal="SIGKILL", stop_reason="linger")).kind is OutcomeKind.CRASHED
    background = TaskChanged(task_id="t", status="started", background=True)
    assert run(background, done(), stop, exit_=facts(stop_reason="linger", dropped={"stdout": 1})).ok
    denied = done(denials=(Denial(name="Bash", tool_id="t"),))
    assert run(denied, stop, exit_=facts(code=143, stop_reason="linger")).kind is OutcomeKind.DENIED


def test_what_was_left_running_is_said_beside_a_success() -> None:
    left = (Leftover(pid=7, command="sleep 1000"),)
    ended = run(done(), exit_=facts(left_behind=left, stop_reason="linger"), request_=request(limits=Limits(linger=3)))
    assert ended.summary == (
        "The run ended well; it had not gone 3 s after its last word (--linger), and 1 command that it had left running was ended."
    )
    assert ended.evidence[-2:] == ("stop requested: linger", "left running: sleep 1000")
    kept = run(done(), exit_=facts(left_behind=left * 2, kept=True))
    assert kept.summary == "The run ended well; 2 commands that it had left running live on."
    assert run(done(), exit_=facts(left_behind=left * 100)).evidence.count("left running: sleep 1000") == 5
    assert run(done()).summary == "The run ended well."


# --- no closing statement ---------------------------------------------------------------------------------------------


def test_cut_output_at_exit_code_0_is_no_success() -> None:
    outcome = run(exit_=facts(code=0))
    assert outcome.kind is OutcomeKind.CRASHED
    assert "exit code is 0" in outcome.summary


def test_a_signal_that_cut_the_output_is_named() -> None:
    for outcome in (run(exit_=facts(signal="SIGKILL")), told(judge(RunState(), request=request(), exit=facts(signal="SIGKILL")))):
        assert outcome.kind is OutcomeKind.CRASHED
        assert outcome.summary == "The agent was ended by SIGKILL, which did not come from us."


def test_a_full_disk_is_named_as_what_cut_the_output() -> None:
    outcome = run(exit_=facts(code=0, dropped={"stdout": 12_345}))
    assert outcome.kind is OutcomeKind.CRASHED
    assert "stdout: 12,345 bytes dropped" in outcome.evidence
    assert "disk" in outcome.cure


def test_output_that_was_dropped_before_the_last_word_is_said_beside_a_success() -> None:
    outcome = run(done(), exit_=facts(dropped={"stdout": 12_345, "stderr": 0}))
    assert outcome.ok
    assert outcome.summary == "The run ended well; not all of its output could be kept."
    assert outcome.evidence[-1] == "stdout: 12,345 bytes dropped"


def test_a_last_word_that_may_have_been_dropped_is_no_success() -> None:
    task = TaskChanged(task_id="t", status="started", background=True)
    working = run(task, done(), exit_=facts(dropped={"stdout": 1}))
    assert working.kind is OutcomeKind.CRASHED
    assert "1 bytes dropped" in working.evidence[0]
    assert run(task, done(), exit_=facts(dropped={"stderr": 1})).ok
    over = TaskChanged(task_id="t", status="completed", background=True)
    assert run(task, done(), over, done(), exit_=facts(dropped={"stdout": 1})).ok


def test_a_command_s_exit_code_needs_no_output() -> None:
    shell = request(agent="shell")
    dropped = facts(dropped={"stdout": 6, "stderr": 2})
    outcome = judge(RunState(), request=shell, exit=dropped)
    assert outcome.ok
    assert outcome.summary == "The run ended well; not all of its output could be kept."
    assert outcome.evidence[-2:] == ("stdout: 6 bytes dropped", "stderr: 2 bytes dropped")
    contradicted = judge(RunState(), request=shell, exit=dropped, checks=(Check(what="grep", passed=False),))
    assert contradicted.kind is OutcomeKind.FAILED


def test_an_agent_that_refused_its_options_says_so_on_standard_error() -> None:
    outcome = judge(
        advance_all(RunState(), [StderrWritten(text="warning\nerror: unknown option\n \n")]), request=request(), exit=facts(code=1)
    )
    assert outcome.kind is OutcomeKind.FAILED
    assert outcome.evidence[-1] == "stderr: error: unknown option"


# --- the API ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "code", "kind", "cure"),
    [
        ({"api_status": 401}, "authentication_failed", "auth", "ANTHROPIC_API_KEY"),
        ({"api_status": 403}, "authentication_failed", "auth", "access"),
        ({}, "authentication_failed", "auth", "Run `claude` in a terminal and log in (or set ANTHROPIC_API_KEY)."),
        ({}, "oauth_org_not_allowed", "auth", "organisation"),
        ({"api_status": 400}, "billing_error", "usage_limited", "credit"),
        ({"api_status": 402}, "", "usage_limited", "credit"),
        ({"api_status": 429}, "rate_limit", "rate_limited", "in an hour"),
        ({}, "rate_limit", "rate_limited", "Wait"),
        ({"api_status": 529}, "server_error", "rate_limited", "--fallback-model"),
        ({}, "overloaded", "rate_limited", "--fallback-model"),
        ({"api_status": 404}, "model_not_found", "failed", "--model"),
        ({"api_status": 413}, "invalid_request", "failed", "Shorten"),
        ({}, "max_output_tokens", "failed", "CLAUDE_CODE_MAX_OUTPUT_TOKENS"),
        ({}, "model_context_window_exceeded", "failed", "new session"),
        ({"terminal_reason": "image_error", "api_status": 413}, "invalid_request", "failed", "Name files"),
        ({"api_status": 500}, "server_error", "failed", "network"),
        ({"api_status": 503}, "", "failed", "network"),
        ({}, "server_error", "failed", "network"),
        ({"api_status": 400}, "invalid_request", "failed", "journal"),
        ({"api_status": 418}, "a_new_code", "failed", "journal"),
        ({}, "a_new_code", "failed", "journal"),
        ({"terminal_reason": "prompt_too_long", "api_status": 400}, "invalid_request", "failed", "Shorten"),
        ({"stop_reason": "refusal"}, "invalid_request", "failed", "Rephrase"),
        ({"subtype": "error_max_turns"}, "", "max_turns", "--max-turns"),
        ({"subtype": "error_max_budget_usd", "terminal_reason": None}, "", "budget", "--max-cost"),
        ({"subtype": "error_max_structured_output_retries"}, "", "schema", "schema"),
        ({"terminal_reason": "hook_stopped", "is_error": False}, "", "failed", "hooks"),
        ({"stop_reason": "max_tokens", "is_error": False}, "", "failed", "less"),
        ({"terminal_reason": "a_new_reason", "is_error": False}, "", "ok", ""),
    ],
)
def test_the_words_of_the_closing_statement_and_of_the_api(fields: dict[str, Any], code: str, kind: str, cure: str) -> None:
    failure = (AgentFailed(code=code, text="whatever"),) if code else ()
    is_error = fields.get("is_error", True)
    outcome = run(*failure, done(**({"is_error": True} | fields)), exit_=facts(code=int(is_error)))
    assert outcome.kind.value == kind
    assert cure in outcome.cure


@pytest.mark.parametrize(
    ("field", "word"), [("terminal_reason", "prompt_too_long"), ("subtype", "error_max_turns"), ("stop_reason", "refusal")]
)
def test_the_word_that_decides_is_evidence(field: str, word: str) -> None:
    outcome = run(done(is_error=True, **({"terminal_reason": None} | {field: word})), exit_=facts(code=1))
    assert outcome.evidence[0] == f"result.{field} = {word}"


def test_a_used_up_window_says_until_when() -> None:
    limited = RateLimited(status="rejected", resets_at=1795224998.0, window="five_hour")
    outcome = run(limited, AgentFailed(code="rate_limit"), done(is_error=True, api_status=429), exit_=facts(code=1))
    assert outcome.kind is OutcomeKind.USAGE_LIMITED
    assert outcome.evidence[:2] == ("rate_limit_event.status = rejected (five_hour)", "rate_limit_event.resetsAt = 1795224998")
    assert "until 2026-11-21 01:36 UTC" in outcome.summary
    assert "Run it again after 2026-11-21 01:36 UTC" in outcome.cure
    warned = RateLimited(status="allowed_warning", resets_at=1795224998.0)
    assert run(warned, done(is_error=True, api_status=429), exit_=facts(code=1)).kind is OutcomeKind.RATE_LIMITED
    assert run(limited, done()).ok
    assert run(limited, done(is_error=True, api_status=401), exit_=facts(code=1)).kind is OutcomeKind.AUTH
    endless = run(RateLimited(status="rejected"), done(is_error=True, api_status=429), exit_=facts(code=1))
    assert (endless.kind, endless.cure) == (OutcomeKind.USAGE_LIMITED, "Run it again later, or use an API key.")
    assert endless.evidence[0] == "rate_limit_event.status = rejected (window unknown)"
    odd = run(RateLimited(status="rejected", resets_at=1e15), done(is_error=True, api_status=429), exit_=facts(code=1))
    assert (odd.kind, odd.cure) == (OutcomeKind.USAGE_LIMITED, "Run it again after 1000000000000000 s after 1970, or use an API key.")


def test_an_overload_is_known_by_its_retries_where_the_result_names_no_status() -> None:
    retry = ApiRetried(attempt=2, max_attempts=10, delay=1.0, status=529)
    closing = done(is_error=True, api_status=None)
    for code in ("server_error", "unknown"):
        assert run(retry, AgentFailed(code=code), closing, exit_=facts(code=1)).kind is OutcomeKind.RATE_LIMITED
    # What the result says itself goes before, and a request that was refused at once has no part in them.
    assert "network" in run(retry, AgentFailed(code="server_error"), done(is_error=True, api_status=500), exit_=facts(code=1)).cure
    assert run(retry, AgentFailed(code="invalid_request"), closing, exit_=facts(code=1)).kind is OutcomeKind.FAILED
    assert run(retry, AgentFailed(code="server_error"), done()).ok
    # Whoever is throttled with nothing tried again was asked for a long wait.
    throttled = AgentFailed(code="rate_limit"), done(is_error=True, api_status=429)
    assert "Wait" in run(ApiRetried(attempt=1, max_attempts=1, delay=1.0, status=429), *throttled, exit_=facts(code=1)).cure
    # Another turn's retries prove nothing of this one.
    other_turn = (retry, done(), SessionOpened(session_id="s"), AgentFailed(code="server_error"), closing)
    assert run(*other_turn, exit_=facts(code=1)).kind is OutcomeKind.FAILED


def test_a_failure_has_all_that_was_said_of_it_as_evidence() -> None:
    said = done(is_error=True, api_status=500, terminal_reason="api_error", errors=("boom", ""), text="API Error: 500")
    outcome = run(AgentFailed(code="server_error"), said, exit_=facts(code=1))
    assert outcome.evidence == (
        "result.is_error = true", "result.api_error_status = 500", "assistant.error = server_error", "result.terminal_reason = api_error",
        "result: boom", "result: API Error: 500", "exit code = 1",
    )  # fmt: skip
    many = run(done(is_error=True, errors=tuple("abcdef")), exit_=facts(code=1))
    assert [item for item in many.evidence if item.startswith("result: ")] == ["result: a", "result: b", "result: c", "result: x"]
    cut = run(AgentFailed(code="max_tokens"), done(is_error=True), exit_=facts(code=1))
    assert "stop_reason = max_tokens" in cut.evidence
    retry = ApiRetried(attempt=2, max_attempts=10, delay=1.0, status=None)
    unheard = run(retry, done(is_error=True, terminal_reason=None), exit_=facts(code=1))
    assert unheard.evidence == ("result.is_error = true", "last api_retry.error_status = null", "result: x", "exit code = 1")
    assert run(retry, AgentFailed(code="server_error"), done()).evidence == (
        "result.is_error = false", "result.terminal_reason = completed", "exit code = 0",
    )  # fmt: skip


@given(st.text(max_size=80), st.lists(st.text(max_size=40), max_size=3))
def test_no_words_of_the_model_or_of_an_error_change_the_outcome(text: str, errors: list[str]) -> None:
    for said in (
        text,
        "API Error: 401 authentication_failed",
        "permission denied",
        "Not logged in · Please run /login",
        "rate limit, 429, 529",
    ):
        assert run(TextWritten(block="A:1", text=said, whole=True), done(text=said)).ok
        failed = run(AgentFailed(code="a_new_code", text=said), done(is_error=True, text=said, errors=tuple(errors)), exit_=facts(code=1))
        assert failed.kind is OutcomeKind.FAILED
        assert failed.summary == "The agent says that it failed."


# --- claims of success ------------------------------------------------------------------------------------------------


def test_denied_tools_are_named_with_the_option_that_allows_them() -> None:
    denials = (Denial(name="Write", tool_id="1", input="{}"), Denial(name="Bash", tool_id="2"), Denial(name="Write", tool_id="3"))
    outcome = run(done(denials=denials))
    assert outcome.kind is OutcomeKind.DENIED
    assert '--tools "Write,Bash"' in outcome.cure
    assert outcome.summary == "3 tool calls were not allowed (Write, Bash), whatever the agent says of the work."
    assert outcome.evidence == ("result.permission_denials: 3", "denied: Write {}", "denied: Bash", "denied: Write")
    assert run(done(denials=denials[:1])).summary.startswith("1 tool call was not allowed (Write)")
    many = run(done(denials=tuple(Denial(name="Bash", tool_id=str(number)) for number in range(1000))))
    assert many.evidence == ("result.permission_denials: 1000", *["denied: Bash"] * 5)


def test_nobody_is_told_to_allow_what_is_allowed_already() -> None:
    bash, write = Denial(name="Bash", tool_id="1"), Denial(name="Write", tool_id="2")
    allowed = request(tools=("Bash",))
    assert '--tools "Write"' in run(done(denials=(bash, write)), request_=allowed).cure
    cure = run(done(denials=(bash,)), request_=allowed).cure
    assert "--tools" not in cure
    assert "--ask" in cure
    ask = PermissionAsked(ask_id="q", tool_id="1", name="Bash", input="{}")
    refused = run(ask, Answered(ask_id="q", decision="refused", note="headless"), done(denials=(bash,)), request_=allowed)
    assert "--tools" not in refused.cure


def test_who_denies_by_hand_has_decided_and_who_could_not_answer_is_told_of() -> None:
    ask = PermissionAsked(ask_id="q", tool_id="t", name="Bash", input='{"command": "make"}')
    closing = done(denials=(Denial(name="Bash", tool_id="t", input="{}"),))
    assert run(ask, Answered(ask_id="q", decision="deny"), closing).ok
    assert run(ask, Answered(ask_id="q", decision="deny"), done(denials=(Denial(name="Bash", tool_id="u"),))).kind is OutcomeKind.DENIED
    nameless = PermissionAsked(ask_id="q", tool_id="", name="Bash"), Answered(ask_id="q", decision="deny")
    assert run(*nameless, done(denials=(Denial(name="Write", tool_id=""),))).kind is OutcomeKind.DENIED
    by_hand = run(ask, Answered(ask_id="q", decision="allow"), done(denials=(Denial(name="Bash", tool_id="u"),)))
    assert "nobody could answer" not in by_hand.summary
    refused = run(ask, Answered(ask_id="q", decision="refused", note="headless"), closing)
    assert refused.kind is OutcomeKind.DENIED
    assert refused.summary.startswith("The agent asked, and nobody could answer:")
    assert refused.evidence[0] == "refused: Bash: make"
    assert '--tools "Bash"' in refused.cure
    more = (*closing.denials, Denial(name="AskUserQuestion", tool_id="u"), Denial(name="Write", tool_id="v"))
    assert '--tools "Bash,Write"' in run(ask, Answered(ask_id="q", decision="refused", note="headless"), done(denials=more)).cure


def test_a_denial_in_an_earlier_turn_counts() -> None:
    assert run(done(denials=(Denial(name="Bash", tool_id="t"),)), SessionOpened(session_id="s"), done()).kind is OutcomeKind.DENIED


@given(st.lists(st.builds(Denial, name=st.sampled_from(["Bash", "Write", "mcp__x__y"]), tool_id=st.text(max_size=3), input=st.text(max_size=9)), min_size=1),
       st.booleans(), st.sampled_from([None, 0, 1, 143]))  # fmt: skip
def test_a_run_with_denials_is_never_ok(denials: list[Denial], schema: bool, code: int | None) -> None:
    outcome = run(done(denials=tuple(denials)), request_=request(output_schema={} if schema else None), exit_=facts(code=code))
    assert outcome.kind is OutcomeKind.DENIED


def test_a_prompt_that_no_model_saw_is_no_success() -> None:
    closing = Finished(subtype="success", is_error=False, text="Unknown command: /foo")
    state = advance_all(
        RunState(), [SessionOpened(session_id="s"), TextWritten(block="z:0", text="Unknown", whole=True, synthetic=True), closing]
    )
    outcome = judge(state, request=request(prompt="/foo"), exit=facts())
    assert outcome.kind is OutcomeKind.FAILED
    assert "No model was asked" in outcome.summary
    result = Finished(subtype="success", is_error=False, structured=Raw(b"{}"))
    assert judge(advance_all(RunState(), [result]), request=request(output_schema={}), exit=facts()).ok


def test_a_session_that_cannot_be_resumed_is_named() -> None:
    closing = Finished(subtype="error_during_execution", is_error=True, errors=("No conversation found with session ID: x",))
    outcome = judge(advance_all(RunState(), [closing]), request=request(resume="x"), exit=facts(code=1))
    assert outcome.kind is OutcomeKind.FAILED
    assert outcome.evidence[0] == "resume = x"
    assert "folder" in outcome.cure
    rehearsed = judge(advance_all(RunState(), [closing]), request=request(resume="x", rehearse="hello"), exit=facts(code=1))
    assert (rehearsed.summary, rehearsed.cure[:40]) == (outcome.summary, "A rehearsal cannot resume a session, for")
    others = (
        judge(advance_all(RunState(), [closing]), request=request(), exit=facts(code=1)),
        run(closing, request_=request(resume="x"), exit_=facts(code=1)),
    )
    assert {other.summary for other in others} == {"The agent says that it failed."}


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exit_", "kind"),
    [
        (facts(code=0), "ok"),
        (facts(code=3), "failed"),
        (facts(code=143), "failed"),
        (facts(signal="SIGSEGV"), "crashed"),
        (facts(code=None), "failed"),
        (facts(code=1, stop_reason="cancel"), "cancelled"),
        (facts(signal="SIGKILL", stop_reason="timeout"), "timeout"),
    ],
)
def test_a_command_is_judged_by_its_exit(exit_: ExitFacts, kind: str) -> None:
    state = advance_all(RunState(), [TextWritten(block="stdout", text="hi\n"), StderrWritten(text="oops\n")])
    outcome = judge(state, request=request(agent="shell"), exit=exit_)
    assert outcome.kind.value == kind
    assert outcome.ok or outcome.cure
    assert not any("result" in item or "None" in item for item in outcome.evidence)
    assert exit_.signal is None or f"signal = {exit_.signal}" in outcome.evidence
    if kind == "failed":
        assert "stderr: oops" in outcome.evidence
        assert outcome.summary.endswith(f"exit code {exit_.code}." if exit_.code is not None else "exit code that nobody knows.")


def test_a_command_is_checked_like_an_agent() -> None:
    state = RunState()
    assert (
        judge(state, request=request(agent="shell"), exit=facts(), checks=(Check(what="file x", passed=False),)).kind is OutcomeKind.FAILED
    )
    assert judge(state, request=request(agent="shell"), exit=None).kind is OutcomeKind.LOST
