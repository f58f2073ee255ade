"""The end of a run: checks outside the agent, the outcome, the sealed receipt. Done once for each run, by whoever follows it to its end."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec

from cc_executor import __version__
from cc_executor.model.event import Usage
from cc_executor.model.exit import ExitFacts
from cc_executor.model.receipt import Check, Exit, FileChange, Receipt, Standing, StreamDigest, Times, TokenUsage
from cc_executor.model.request import RunRequest
from cc_executor.model.state import RunState
from cc_executor.policy.redact import Redactor
from cc_executor.policy.verdict import judge
from cc_executor.runtime.plan import Plan, change_of, resolved
from cc_executor.shim import records
from cc_executor.store.journal import RunFolder

VERIFY_BUDGET: Final = 600.0  # seconds; a test suite fits, a hang ends the same evening
_DETAIL_LIMIT: Final = 2000  # characters of a check's output that the receipt keeps
_TEXT_LIMIT: Final = 32_000  # characters of the final text that the receipt keeps; longer ones are in the journal
_FILE_LIMIT: Final = 200  # files that the receipt names
KILL_BUDGET: Final = 5.0


async def seal(folder: RunFolder, state: RunState, *, redactor: Redactor, now: float) -> Receipt:
    """The receipt of a run that has ended or was lost; the stored one if there is one already.

    Parameters
    ----------
    state : RunState
        The fold of every event of the run.
    redactor : Redactor
        Masks what the shim could not see whole (text put together from several lines).
    now : float
        Seconds since the epoch, used as the end of a run that was lost.
    """
    if (known := folder.receipt()) is not None:
        return known
    request, plan, facts = folder.request(), Plan.of(folder), folder.exit_facts()
    checks = await _checks(request, plan, cancelled=state.stop is not None and state.stop.reason != "linger")
    journal = await anyio.to_thread.run_sync(_digests, folder, facts)
    files = await anyio.to_thread.run_sync(_files, request, plan, state)
    receipt = receipt_over(folder, request, plan, state, facts, checks=checks, journal=journal, files=files, now=now)
    masked = Receipt.model_validate(redactor.json(receipt.model_dump(mode="json"))).sealed()
    return await anyio.to_thread.run_sync(_keep_first, folder, masked)


def _keep_first(folder: RunFolder, receipt: Receipt) -> Receipt:
    """Two readers may reach the end together: the first receipt stays."""
    temporary = f".{records.RECEIPT}.{os.getpid()}"
    folder.replace(temporary, receipt.model_dump_json(indent=1).encode())
    try:
        os.link(folder.path / temporary, folder.path / records.RECEIPT)
    except FileExistsError:
        return folder.receipt() or receipt
    finally:
        (folder.path / temporary).unlink()
    return receipt


async def _checks(request: RunRequest, plan: Plan, *, cancelled: bool) -> tuple[Check, ...]:
    found: list[Check] = []
    for name, before in plan.before.items():
        change = await anyio.to_thread.run_sync(lambda name=name, before=before: change_of(name, cwd=request.cwd, before=before))
        if change.after is None:
            found.append(Check(what=f"file {name}", passed=False, detail="is not there"))
        elif change.after == before:
            found.append(Check(what=f"file {name}", passed=False, detail="is unchanged"))
        else:
            found.append(Check(what=f"file {name}", passed=True, detail="is new" if before is None else "has changed"))
    if request.verify is not None:
        if cancelled:
            found.append(Check(what=request.verify, passed=None, detail="not run: the run was stopped"))
        else:
            found.append(await _run_check(request.verify, cwd=request.cwd))
    return tuple(found)


async def _run_check(command: str, *, cwd: str) -> Check:
    """The user's own command line, in the user's own environment, outside the agent; in its own session, so that a hang can be ended whole."""
    try:
        process = await anyio.open_process(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    except OSError as error:
        return Check(what=command, passed=None, detail=f"could not be started: {error.strerror}")
    output = bytearray()
    try:
        with anyio.move_on_after(VERIFY_BUDGET):
            assert process.stdout is not None  # PIPE was asked for
            async for chunk in process.stdout:
                output += chunk
                del output[: -4 * _DETAIL_LIMIT]
            code = await process.wait()
            detail = output.decode(errors="replace")[-_DETAIL_LIMIT:].strip()
            return Check(what=command, passed=code == 0, detail=f"exit code {code}" + (f": {detail}" if detail else ""))
        return Check(what=command, passed=None, detail=f"did not end in {VERIFY_BUDGET:.0f} s and was ended")
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(KILL_BUDGET):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.aclose()


def _digests(folder: RunFolder, facts: ExitFacts | None) -> dict[str, StreamDigest]:
    dropped = facts.dropped if facts else {}
    return {name: folder.digest(name, dropped=dropped.get(name, 0)) for name in (*records.STREAMS, records.CONTROL, records.INDEX_FILE, records.EXIT)}


def _files(request: RunRequest, plan: Plan, state: RunState) -> tuple[FileChange, ...]:
    before = {str(resolved(name, cwd=request.cwd)): digest for name, digest in plan.before.items()}
    names = dict.fromkeys([*before, *(str(resolved(path, cwd=request.cwd)) for path in state.files)])
    return tuple(change_of(name, cwd=request.cwd, before=before.get(name)) for name in list(names)[:_FILE_LIMIT])


def _standing(checks: Sequence[Check]) -> Standing:
    if any(check.passed is False for check in checks):
        return Standing.CONTRADICTED
    if checks and all(check.passed for check in checks):
        return Standing.VERIFIED
    return Standing.CLAIMED


def _bounded(text: str) -> str:
    if len(text) <= _TEXT_LIMIT:
        return text
    half = _TEXT_LIMIT // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters left out; the journal has them …]\n{text[-half:]}"


def receipt_over(
    folder: RunFolder,
    request: RunRequest,
    plan: Plan,
    state: RunState,
    facts: ExitFacts | None,
    *,
    checks: tuple[Check, ...],
    journal: dict[str, StreamDigest],
    files: tuple[FileChange, ...],
    now: float,
) -> Receipt:
    """The receipt, not sealed yet, that follows from a run's journal and checks."""
    data: Any = None
    if state.finished is not None and state.finished.structured is not None:
        data = msgspec.json.decode(state.finished.structured)
    exit_ = Exit()
    if facts is not None:
        left = tuple(leftover.command for leftover in facts.left_behind)
        exit_ = Exit(code=facts.code, signal=facts.signal, stopped_for=facts.stop_reason, left_behind=left, survivors=facts.survivors)
    return Receipt(
        run_id=folder.run_id,
        request_digest=request.digest(),
        agent=request.agent,
        agent_version=state.agent_version or plan.agent_version,
        agent_path=plan.agent_path,
        model=state.model,
        argv=plan.argv,
        cwd=request.cwd,
        prompt_sha256=_prompt_digest(request),
        env_names=plan.env_names,
        permission_mode=state.permission_mode,
        session_id=state.session_id or plan.session_id,
        rehearsed=plan.rehearsed,
        times=_times(folder, facts, now),
        outcome=judge(state, request=request, exit=facts, checks=checks),
        exit=exit_,
        usage=_usage(state.usage),
        cost=0.0 if plan.rehearsed and state.cost is not None else state.cost,  # a script's figures are nobody's money
        turns=state.turns,
        denials=tuple(denial.name for denial in state.denials),
        retries=state.retries,
        text=_bounded(state.text),
        data=data,
        files=files,
        checks=checks,
        standing=_standing(checks),
        journal=journal,
        host=socket.gethostname(),
        cc_executor_version=__version__,
    )


def _prompt_digest(request: RunRequest) -> str:
    return hashlib.sha256(request.prompt.encode("utf-8", "surrogatepass")).hexdigest()


def _times(folder: RunFolder, facts: ExitFacts | None, now: float) -> Times:
    if facts is None:
        elapsed = max(0.0, now - folder.created_at)
        return Times(started=_utc(folder.created_at), ended=_utc(now), elapsed=elapsed, active=elapsed)
    return Times(
        started=_utc(facts.started_at),
        ended=_utc(facts.ended_at),
        elapsed=round(facts.elapsed, 3),
        active=round(facts.active, 3),
        paused=round(facts.paused, 3),
        frozen=round(facts.frozen, 3),
    )


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(round(seconds, 3), UTC)


def _usage(usage: Usage) -> TokenUsage:
    return TokenUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_creation_tokens=usage.cache_creation_tokens,
    )
