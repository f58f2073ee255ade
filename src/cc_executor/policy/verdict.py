"""How a run ended: a table, walked in order, over structured evidence. Knows no file, no clock, and never reads what the model wrote.

What the agent says is a claim. With Claude Code, exit code 0 is no success, `subtype: "success"` is none, and `is_error: false` is none: denied
tools, unmet schemas and cut output come with all three. So success is what is left when no row of the table applies. The rows read exit status, stop
requests, limits, and the closing statement's own fields and error codes; the texts of errors are shown as evidence and decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final, NamedTuple

import msgspec

from cc_executor.model.ask import ASK_USER, Decision
from cc_executor.model.event import AgentFailed, Finished
from cc_executor.model.exit import ExitFacts
from cc_executor.model.outcome import ENDED_WELL, Outcome, OutcomeKind
from cc_executor.model.receipt import Check
from cc_executor.model.request import RunRequest
from cc_executor.model.state import RunState
from cc_executor.policy.ask import cure_of, why_of
from cc_executor.policy.ends import ENDS, FAULTS, LONG_WAIT, SEE_MORE, STOP_REASONS, STOPS, UNREACHABLE, End

# Agents that make no closing statement: their exit code is their word.
WORDLESS_AGENTS: Final = frozenset({"shell"})

# Claude Code 2.1.330 wants leave for `cd .. && rm -rf FOLDER` in spite of `--tools Bash`.
STILL_ASKED: Final = (
    "The tool is allowed already, and such a call needs leave all the same: be asked with --ask, or choose another permission mode."
)
EVIDENCE_LIMIT: Final = 300  # characters of one piece of evidence


class _Case(NamedTuple):
    """What the rows look at."""

    state: RunState
    request: RunRequest
    exit: ExitFacts
    checks: Sequence[Check]
    finished: Finished
    failure: AgentFailed

    @property
    def stop_reason(self) -> str:
        """Why we ended the run; empty when it ended by itself."""
        return self.exit.stop_reason or (self.state.stop.reason if self.state.stop is not None else "")

    @property
    def status(self) -> int | None:
        """The API's last answer to a request that failed for good. After several overloads the CLI says none, and only its retries do."""
        if self.finished.api_status is not None or self.state.retry is None or self.failure.code not in _RETRIED_CODES:
            return self.finished.api_status
        return self.state.retry.status


# Codes under which Claude Code reports a request that it retried in vain.
_RETRIED_CODES: Final = frozenset({"server_error", "overloaded", "rate_limit", "unknown"})

_NOTHING_SAID: Final = Finished(subtype="", is_error=False)
_NO_FAILURE: Final = AgentFailed(code="")

Row = Callable[[_Case], Outcome | None]


def judge(state: RunState, *, request: RunRequest, exit: ExitFacts | None, checks: Sequence[Check] = ()) -> Outcome:  # noqa: A002  # the word for it
    """The outcome of a run that has ended.

    Parameters
    ----------
    state : RunState
        The fold of all its events.
    request : RunRequest
        What was asked for: the agent, a schema, a session to resume.
    exit : ExitFacts or None
        What the supervisor wrote down at the end; None: it did not, so nobody saw the end.
    checks : sequence of Check
        Checks that were made outside of the agent.

    Returns
    -------
    Outcome
        The first row of the table that applies, with its evidence and cure.
    """
    if exit is None:
        return _lost(state)
    case = _Case(state, request, exit, checks, state.finished or _NOTHING_SAID, state.failure or _NO_FAILURE)
    for row in _WORDLESS if request.agent in WORDLESS_AGENTS else _TABLE:
        outcome = row(case)
        if outcome is not None:
            return outcome
    return _well(case)


# --- we ended it ------------------------------------------------------------------------------------------------------


def _lost(state: RunState) -> Outcome:
    evidence = ["no exit record"]
    if state.finished is not None:
        evidence.append(f"result.is_error = {_json(state.finished.is_error)}")
    return Outcome(
        kind=OutcomeKind.LOST,
        summary="Nobody saw the end of the run: its supervisor is gone (killed, or the machine went down).",
        evidence=tuple(evidence),
        cure="What it wrote until then is in its journal; look at its files, then run it again.",
    )


def _stopped(case: _Case) -> Outcome | None:
    # `linger`: the agent had said its last word and only did not go; that word decides.
    if not case.stop_reason or case.stop_reason == "linger":
        return None
    stop = STOPS.get(case.stop_reason, End(OutcomeKind.CANCELLED, "The run was ended on request.", "Run it again, or resume its session."))
    summary, cure = stop.summary, stop.cure
    if stop.kind in {OutcomeKind.TIMEOUT, OutcomeKind.STALLED} and case.state.retry is not None and not case.state.model_spoke:
        # It is the limit that ended the run; but more time would not have helped.
        unheard = _fault_of(case.state.retry.status, "")
        summary = f"{summary.removesuffix('.')}, and the API had answered nothing but errors until then."
        cure = unheard.cure if unheard is not None else UNREACHABLE.cure
    evidence = [f"stop requested: {case.stop_reason}"]
    if case.state.stop is not None and case.state.stop.by:
        evidence.append(f"by {case.state.stop.by}")
    if case.state.limit is not None:
        evidence.append(f"limit {case.state.limit.limit} = {case.state.limit.seconds:g} s")
    if case.state.retry is not None:
        evidence.append(f"last api_retry.error_status = {_json(case.state.retry.status)}")
    return Outcome(kind=stop.kind, summary=summary, evidence=(*evidence, *_exit_evidence(case)), cure=cure)


# --- no closing statement ---------------------------------------------------------------------------------------------


def _silent(case: _Case) -> Outcome | None:
    if case.state.finished is not None:
        return None
    evidence = ("no closing statement (result)", *_exit_evidence(case))
    if dropped := case.exit.dropped.get("stdout", 0):
        return Outcome(
            kind=OutcomeKind.CRASHED,
            summary="The end of the agent's output could not be kept.",
            evidence=(*evidence, f"stdout: {dropped:,} bytes dropped"),
            cure="Make room on the disk that holds the runs, or raise --journal-limit, and run it again.",
        )
    if case.exit.signal is not None:
        return Outcome(
            kind=OutcomeKind.CRASHED,
            summary=f"The agent was ended by {_killer(case)}.",
            evidence=evidence,
            cure=_MORE_MEMORY
            if _was_short_of_memory(case)
            else "SIGKILL is often the system short of memory; run it again, or resume the session.",
        )
    if case.exit.code == 0:
        return Outcome(
            kind=OutcomeKind.CRASHED,
            summary="The agent's output ends before its closing statement, although its exit code is 0.",
            evidence=evidence,
            cure="Its work may be complete: look at its files before you run it again, or resume the session.",
        )
    if not case.state.session_id:
        return Outcome(
            kind=OutcomeKind.FAILED,
            summary="The agent refused to start.",
            evidence=(*evidence, *_stderr_evidence(case)),
            cure="Read what it wrote on standard error, and change the options that it names.",
        )
    return Outcome(
        kind=OutcomeKind.CRASHED,
        summary=f"The agent ended with exit code {case.exit.code} in the middle of its work.",
        evidence=(*evidence, *_stderr_evidence(case)),
        cure="Run it again, or resume the session.",
    )


# --- the closing statement says how ---------------------------------------------------------------------------------


def _said_so(case: _Case) -> Outcome | None:
    finished = case.finished
    for field, word, ends in (
        ("terminal_reason", finished.terminal_reason, ENDS),
        ("subtype", finished.subtype, ENDS),
        ("stop_reason", finished.stop_reason, STOP_REASONS),
    ):
        end = ends.get(word or "")
        if end is not None:
            return Outcome(
                kind=end.kind,
                summary=end.summary,
                evidence=tuple(dict.fromkeys((f"result.{field} = {word}", *_closing_evidence(case)))),
                cure=end.cure,
            )
    return None


# --- the API refused --------------------------------------------------------------------------------------------------


def _window_used_up(case: _Case) -> Outcome | None:
    limited = case.state.rate_limit
    if not case.finished.is_error or limited is None or limited.status != "rejected":
        return None
    if case.status not in {None, HTTPStatus.TOO_MANY_REQUESTS}:
        return None
    evidence = [f"rate_limit_event.status = rejected ({limited.window or 'window unknown'})"]
    until, again = "", "later"
    if limited.resets_at is not None:
        until, again = f" until {_utc(limited.resets_at)}", f"after {_utc(limited.resets_at)}"
        evidence.append(f"rate_limit_event.resetsAt = {limited.resets_at:.0f}")
    return Outcome(
        kind=OutcomeKind.USAGE_LIMITED,
        summary=f"The subscription's window is used up{until}.",
        evidence=(*evidence, *_closing_evidence(case)),
        cure=f"Run it again {again}, or use an API key.",
    )


def _api_refused(case: _Case) -> Outcome | None:
    if not case.finished.is_error:
        return None
    end = _fault_of(case.status, case.failure.code)
    if case.status == HTTPStatus.TOO_MANY_REQUESTS and not case.state.retries:
        end = LONG_WAIT
    return None if end is None else Outcome(kind=end.kind, summary=end.summary, evidence=_closing_evidence(case), cure=end.cure)


def _fault_of(status: int | None, code: str) -> End | None:
    return next((fault.end for fault in FAULTS if status in fault.statuses or code in fault.codes), None)


def _failed(case: _Case) -> Outcome | None:
    if not case.finished.is_error:
        return None
    if case.request.resume is not None and not case.state.agent_version:
        return Outcome(
            kind=OutcomeKind.FAILED,
            summary="The session could not be resumed.",
            evidence=(f"resume = {case.request.resume}", *_closing_evidence(case)),
            cure="A session can only be resumed by its id and in the folder in which it was begun; check both, or leave `resume` out."
            if case.request.rehearse is None
            else "A rehearsal cannot resume a session, for each has a place of its own for what it keeps: leave `resume` out.",
        )
    return Outcome(kind=OutcomeKind.FAILED, summary="The agent says that it failed.", evidence=_closing_evidence(case), cure=SEE_MORE)


# --- it says that all is well -----------------------------------------------------------------------------------------


def _denied(case: _Case) -> Outcome | None:
    # What a person has denied was that person's decision, and the agent went on with it. It stands in the receipt, and is no failure of the run.
    said_no = {one.tool_id for one in case.state.asked if one.decision == Decision.DENY and one.tool_id}
    denials = tuple(denial for denial in case.state.denials if denial.tool_id not in said_no)
    if not denials:
        return None
    names = list(dict.fromkeys(denial.name for denial in denials))
    missing = [name for name in names if name not in case.request.tools]
    calls = [_cut(f"denied: {denial.name} {denial.input}".rstrip()) for denial in denials[:5]]
    count = len(denials) + case.state.denials_left_out
    refused = next((one for one in case.state.asked if one.decision == Decision.REFUSED), None)
    if refused is not None:
        tools = ",".join(name for name in missing if name != ASK_USER)
        return Outcome(
            kind=OutcomeKind.DENIED,
            summary=f"The agent asked, and nobody could answer: {why_of(refused.note)} (asked for: {', '.join(names)}).",
            evidence=(f"refused: {_cut(refused.what)}", f"result.permission_denials: {count}", *calls),
            cure=cure_of(refused.note, tools),
        )
    return Outcome(
        kind=OutcomeKind.DENIED,
        summary=f"{_counted(count, 'tool call')} {'was' if count == 1 else 'were'} not allowed ({', '.join(names)}), whatever the agent says of the work.",
        evidence=(f"result.permission_denials: {count}", *calls),
        cure=f'Allow it with --tools "{",".join(missing)}", or choose another permission mode.' if missing else STILL_ASKED,
    )


def _schema_unmet(case: _Case) -> Outcome | None:
    if case.request.output_schema is None or case.finished.structured is not None:
        return None
    return Outcome(
        kind=OutcomeKind.SCHEMA,
        summary="A structured result was asked for, and there is none.",
        evidence=("result.structured_output is absent", *_closing_evidence(case)),
        cure="Make the schema simpler, or say in the prompt what each field is.",
    )


def _unasked(case: _Case) -> Outcome | None:
    """The CLI answered by itself: a prompt that it took for one of its own commands ends with success, and no model saw it."""
    if case.state.model_spoke or case.state.usage.output_tokens or case.finished.structured is not None:
        return None
    return Outcome(
        kind=OutcomeKind.FAILED,
        summary="No model was asked: the agent took the prompt for a command of its own.",
        evidence=("no message of a model", *_closing_evidence(case)),
        cure="Begin the prompt with a word.",
    )


def _bad_exit(case: _Case) -> Outcome | None:
    if case.stop_reason == "linger" or case.exit.code == 0:
        return None
    if case.exit.signal is not None:
        return Outcome(
            kind=OutcomeKind.CRASHED,
            summary=f"The agent was ended by {_killer(case)}, after it had reported success.",
            evidence=tuple(dict.fromkeys((*_exit_evidence(case), *_closing_evidence(case)))),
            cure="Its work may be complete: look at its files before you run it again.",
        )
    return Outcome(
        kind=OutcomeKind.FAILED,
        summary=f"The agent reported success and {_exit_words(case)}",
        evidence=(*_exit_evidence(case), *_stderr_evidence(case), *_closing_evidence(case)),
        cure=SEE_MORE,
    )


def _command_failed(case: _Case) -> Outcome | None:
    if case.exit.signal is not None:
        return Outcome(
            kind=OutcomeKind.CRASHED,
            summary=f"The command was ended by {_killer(case)}.",
            evidence=(*_exit_evidence(case), *_stderr_evidence(case)),
            cure=_MORE_MEMORY if _was_short_of_memory(case) else SEE_MORE,
        )
    if case.exit.code == 0:
        return None
    return Outcome(
        kind=OutcomeKind.FAILED,
        summary=f"The command {_exit_words(case)}",
        evidence=(*_exit_evidence(case), *_stderr_evidence(case)),
        cure=SEE_MORE,
    )


def _contradicted(case: _Case) -> Outcome | None:
    """A check that could not be made proves as little as one that failed: whoever asked for it does not have it."""
    failed = [check for check in case.checks if check.passed is False]
    unmade = [check for check in case.checks if check.passed is None]
    if not failed and not unmade:
        return None
    words = "A check outside of the agent failed" if failed else "A check outside of the agent could not be made"
    evidence = tuple(
        _cut(f"check {'failed' if check.passed is False else 'not made'}: {check.what}{f' ({check.detail})' if check.detail else ''}")
        for check in (*failed, *unmade)
    )
    return Outcome(
        kind=OutcomeKind.FAILED,
        summary=f"{words}, although the agent reports success.",
        evidence=evidence,
        cure="Look at the evidence; then run it again, or mend the check.",
    )


def _last_word_lost(case: _Case) -> Outcome | None:
    """A turn may follow a success when a command in the background ends; where output was dropped, its closing statement may have been in it."""
    dropped = case.exit.dropped.get("stdout", 0)
    if not dropped or not case.state.tasks or case.stop_reason == "linger":
        return None
    return Outcome(
        kind=OutcomeKind.CRASHED,
        summary="The agent reported success and went on in the background, and its last word could not be kept.",
        evidence=(f"stdout: {dropped:,} bytes dropped", *_closing_evidence(case)),
        cure="Make room on the disk that holds the runs, or raise --journal-limit, and look at its files before you run it again.",
    )


def _well(case: _Case) -> Outcome:
    """Success is what is left. What is no success of its own but should be known stands beside it."""
    left = case.exit.left_behind
    words: list[str] = []
    if case.stop_reason == "linger":
        words.append(f"it had not gone {case.request.limits.linger:g} s after its last word (--linger)")
    if left:
        fate = ("lives on", "was ended") if len(left) == 1 else ("live on", "were ended")
        words.append(f"{_counted(len(left), 'command')} that it had left running {fate[0] if case.exit.kept else fate[1]}")
    dropped = {name: count for name, count in case.exit.dropped.items() if count}
    if dropped:
        words.append("not all of its output could be kept")
    return Outcome(
        kind=OutcomeKind.OK,
        summary=f"{ENDED_WELL}{'; ' if words else ''}{', and '.join(words)}.",
        evidence=(
            *_closing_evidence(case),
            *(("stop requested: linger",) if case.stop_reason == "linger" else ()),
            *(_cut(f"left running: {leftover.command}") for leftover in left[:5]),
            *(f"{name}: {count:,} bytes dropped" for name, count in dropped.items()),
        ),
    )


_TABLE: Final[tuple[Row, ...]] = (
    _stopped,
    _silent,
    _said_so,
    _window_used_up,
    _api_refused,
    _failed,
    _denied,
    _schema_unmet,
    _unasked,
    _bad_exit,
    _last_word_lost,
    _contradicted,
)
_WORDLESS: Final[tuple[Row, ...]] = (_stopped, _command_failed, _contradicted)


# --- evidence -----------------------------------------------------------------------------------------------------------


_MORE_MEMORY: Final = "Give it more memory, or less to do at a time; then run it again, or resume the session."


def _was_short_of_memory(case: _Case) -> bool:
    """Whether the system ended the agent for want of memory: a SIGKILL that is not ours, and its control group counts one."""
    return case.exit.signal == "SIGKILL" and not case.exit.stop_reason and case.exit.oom_kills > 0


def _killer(case: _Case) -> str:
    return "the system, which was out of memory" if _was_short_of_memory(case) else f"{case.exit.signal}, which did not come from us"


def _exit_evidence(case: _Case) -> tuple[str, ...]:
    how = f"signal = {case.exit.signal}" if case.exit.signal is not None else f"exit code = {case.exit.code}"
    known = case.exit.signal is not None or case.exit.code is not None
    # Also where the agent itself lived on: its tool did not.
    short = (f"the control group's oom_kill grew by {case.exit.oom_kills}",) if case.exit.oom_kills else ()
    return (*((how,) if known else ()), *short)


def _exit_words(case: _Case) -> str:
    return f"ended with exit code {case.exit.code}." if case.exit.code is not None else "ended with an exit code that nobody knows."


def _stderr_evidence(case: _Case) -> tuple[str, ...]:
    lines = [line.strip() for line in case.state.stderr.text.splitlines() if line.strip()]
    return (_cut(f"stderr: {lines[-1]}"),) if lines else ()


def _closing_evidence(case: _Case) -> tuple[str, ...]:
    finished = case.finished
    evidence: list[str] = []
    if case.state.finished is not None:
        evidence.append(f"result.is_error = {_json(finished.is_error)}")
    if finished.api_status is not None:
        evidence.append(f"result.api_error_status = {finished.api_status}")
    elif finished.is_error and case.state.retry is not None:
        evidence.append(f"last api_retry.error_status = {_json(case.state.retry.status)}")
    if finished.is_error and case.failure.code:
        # Two codes are the API's own stop reasons, which the CLI says in other words.
        evidence.append(_cut(f"{'stop_reason' if case.failure.code in STOP_REASONS else 'assistant.error'} = {case.failure.code}"))
    if finished.terminal_reason is not None:
        evidence.append(f"result.terminal_reason = {finished.terminal_reason}")
    # The texts are the agent's words for people; no row reads them.
    if finished.is_error:
        evidence += [_cut(f"result: {text}") for text in (*finished.errors[:3], finished.text) if text]
    return tuple(dict.fromkeys((*evidence, *_exit_evidence(case))))


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= EVIDENCE_LIMIT else f"{line[: EVIDENCE_LIMIT - 1]}…"


def _json(value: bool | int | None) -> str:
    return msgspec.json.encode(value).decode()


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _utc(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError, OSError):  # a figure that is no date
        return f"{seconds:.0f} s after 1970"
