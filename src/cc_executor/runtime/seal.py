"""The end of a run: checks outside the agent, the outcome, the sealed receipt. Done once for each run, by whoever follows it to its end."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import socket
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import anyio
import msgspec

from cc_executor import __version__
from cc_executor.errors import StateUnusable
from cc_executor.model.ansi import encodable
from cc_executor.model.ask import Settled
from cc_executor.model.event import Usage
from cc_executor.model.exit import ExitFacts
from cc_executor.model.receipt import AskedFor, Check, Exit, FileChange, Receipt, Standing, StreamDigest, Times, TokenUsage, Undo
from cc_executor.model.request import RunRequest, canonical_digest
from cc_executor.model.state import RunState
from cc_executor.policy.redact import Redactor, secret_values
from cc_executor.policy.verdict import judge
from cc_executor.runtime.checks import KILL_BUDGET, Checking
from cc_executor.runtime.errand import Errand, in_thread
from cc_executor.runtime.history import remember_soon
from cc_executor.runtime.hooks import RunHooks
from cc_executor.runtime.leftovers import end_marked
from cc_executor.runtime.plan import Plan, change_of, resolved
from cc_executor.runtime.snapshot import Seen, take_after
from cc_executor.shim import records
from cc_executor.store import roll, underway
from cc_executor.store.held import held_here
from cc_executor.store.journal import RunFolder
from cc_executor.store.keys import private_values, signer_of

logger = logging.getLogger(__name__)

HEAD_START: Final = 2.0  # seconds; whoever started a run and follows it reaches its end within some milliseconds
LOOK: Final = 0.02  # seconds
# Seconds for which somebody who wants to wait no longer still waits for another who seals: the receipt of a run without a check takes some milliseconds.
TURN_BUDGET: Final = 5.0
KEEP_BUDGET: Final = 30.0  # seconds for a disk to take the receipt, if nobody wants to wait for it; mostly some milliseconds
_CLAIM: Final = "sealing"  # locked (flock) by whoever seals
TEXT_LIMIT: Final = 32_000  # characters of the final text that the receipt keeps; longer ones are in the journal
LEFT_OUT: Final = "characters left out; the journal has them"  # stands in the text of every receipt that has both ends alone
_FILE_LIMIT: Final = 200  # files that the receipt names
_DEPTH_LIMIT: Final = 100  # brackets inside brackets of a structured output; what writes and reads receipts gives up at some 250


def redactor_of(environ: Mapping[str, str], root: Path) -> Redactor:
    """What masks the secrets of an environment and of the state folder `root`, in receipts and in whatever else is told of a run."""
    return Redactor((*secret_values(environ), *private_values(root)))


async def seal(
    folder: RunFolder,
    state: RunState,
    *,
    checking: Checking,
    redactor: Redactor,
    now: float,
    hooks: RunHooks,
    is_watcher: bool = False,
) -> Receipt:
    """The receipt of a run that has ended or was lost; the stored one if there is one already.

    Several may reach the end together, in one process or in many: one of them makes the checks and the receipt, and the others wait for it. Then whoever is to
    be told is told, once.

    Parameters
    ----------
    state : RunState
        The fold of every event of the run.
    checking : Checking
        Makes the checks outside the agent.
    redactor : Redactor
        Masks what the shim could not see whole (text put together from several lines).
    now : float
        Seconds since the epoch; no run that was lost has ended later.
    hooks : RunHooks
        Called when everything else is known, and before the seal.
    is_watcher : bool
        Somebody else has started the run: where the user's command is to be run, that one goes first, for it is meant for that one's environment.
    """
    receipt = await _sealed(folder, state, checking=checking, redactor=redactor, now=now, hooks=hooks, is_watcher=is_watcher)
    await hooks.telling.ended(receipt)
    return receipt


async def _sealed(
    folder: RunFolder, state: RunState, *, checking: Checking, redactor: Redactor, now: float, hooks: RunHooks, is_watcher: bool
) -> Receipt:
    if (known := folder.receipt()) is not None:
        _strike(folder)
        return known
    request, plan = folder.request(), Plan.of(folder)
    head_start = HEAD_START if is_watcher and (request.verify is not None or hooks.is_owed(folder)) else 0.0
    async with _turn(folder, head_start=head_start, is_over=lambda: checking.is_unwanted):
        if (known := folder.receipt()) is not None:
            return known
        facts = folder.exit_facts()
        if facts is None and not fence(folder) and state.exited is None:
            raise StateUnusable(f"Run {folder.run_id} has begun only now, for its supervisor was late: look at it again.")
        if facts is None and not request.keep_background:
            # Nobody owns what is left of the tree: the kernel ended the agent with its supervisor, and its tools live on in sessions of their own.
            await Errand(lambda _: end_marked(plan.mark or folder.run_id), patience=KILL_BUDGET).run()
        ended_at = facts.ended_at if facts is not None else _last_sign(folder, now)
        await in_thread(
            lambda: take_after(request, folder, ended_at=ended_at, claimed=state.files, environ=checking.environ), takes_long=True
        )  # before the checks, which may write files of their own
        was_stopped = facts is None or (state.stop is not None and state.stop.reason != "linger")
        with nullcontext() if request.verify is None else underway.noted(folder.path.parent.parent, folder.run_id):
            checks = await checking.make(request, plan, folder=folder, was_stopped=was_stopped)
        journal = await in_thread(lambda: _digests(folder, facts))
        seen = await in_thread(lambda: Seen(folder, request))
        files = await in_thread(lambda: _files(request, plan, state, seen))
        receipt = receipt_over(folder, request, plan, state, facts, checks=checks, journal=journal, files=files, undo=seen.undo, now=now)
        with underway.noted(folder.path.parent.parent, folder.run_id) if hooks.is_owed(folder) else nullcontext():
            final = await hooks.after(folder, _masked(receipt, redactor))
        sealed = await in_thread(lambda: final.sealed(signer_of(folder.path.parent.parent)))
        # An errand: who is interrupted here asks for the receipt again at once, and two of them would be made.
        return await Errand(
            lambda _: _keep(folder, sealed, redactor, tools=len(state.tools) + state.tools_left_out), patience=KEEP_BUDGET
        ).run()


@asynccontextmanager
async def _turn(folder: RunFolder, *, head_start: float, is_over: Callable[[], bool]) -> AsyncGenerator[None]:
    """Wait for the one turn to seal.

    Whoever has it may make a check that takes minutes, so the wait has no bound of its own. He may stand still, too: once `is_over`, it has one.

    Parameters
    ----------
    head_start : float
        Seconds that are left to others who may want it.
    is_over : callable
        Whether nobody wants to wait any more.

    Raises
    ------
    StateUnusable
        Somebody has it still. The run has ended and loses nothing: its receipt is made by him, or by the next who looks at it.
    """
    descriptor = _claim(folder, make=True)
    if descriptor is None:
        yield
        return
    with held_here(descriptor):
        until = time.monotonic() + head_start
        with suppress(OSError):  # the file system has lost its locks: whoever waits for the receipt gets it all the same
            while time.monotonic() < until and folder.receipt() is None and _is_free(descriptor):  # noqa: ASYNC110 - a file's lock has no event
                await anyio.sleep(LOOK)
            left = TURN_BUDGET
            while not _is_free(descriptor, take=True):
                if left <= 0:
                    raise StateUnusable(
                        f"Another process makes the receipt of run {folder.run_id} and does not come to an end: let it go on, or end it; "
                        f"then `%cc show {folder.run_id}` shows the receipt."
                    )
                await anyio.sleep(LOOK)
                left -= LOOK if is_over() else 0.0
        yield


@contextmanager
def claimed(folder: RunFolder) -> Generator[bool]:
    """Hold the one turn to seal a run, if nobody has it; False if somebody has."""
    descriptor = _claim(folder)
    if descriptor is None:
        yield not os.path.lexists(folder.path)  # it was removed
        return
    with held_here(descriptor):
        try:
            is_ours = _is_free(descriptor, take=True)
        except OSError:  # the file system has lost its locks: who has it cannot be known
            is_ours = False
        yield is_ours


def _claim(folder: RunFolder, *, make: bool = False) -> int | None:
    """A descriptor of what is locked by whoever seals; None where nothing can be opened."""
    # The folder itself, where no file can be made, for the disk is full or it is an archive: two who made the check at once would end each other's.
    for path, flags in ((folder.path / _CLAIM, os.O_RDWR | (os.O_CREAT if make else 0)), (folder.path, os.O_RDONLY | os.O_DIRECTORY)):
        with suppress(OSError):
            return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return None


def _is_free(descriptor: int, *, take: bool = False) -> bool:
    """Whether nobody seals; who only looks shares the lock for a moment with all who do so, too."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if take else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if not take:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


def _keep(folder: RunFolder, receipt: Receipt, redactor: Redactor, *, tools: int) -> Receipt:
    """The receipt that is kept: somebody may have been faster where nobody could wait for a turn."""
    if not folder.has_receipt:  # else one that cannot be read here: a newer version's, or damaged. Either is evidence
        _free_set_aside(folder)
        try:
            folder.keep_first(records.RECEIPT, receipt.model_dump_json(indent=1).encode())
        except StateUnusable as error:
            # The run has ended and may have cost money: its result is owed to whoever waits for it, kept or not.
            logger.warning("the receipt of run %s could not be kept: %s", folder.run_id, error)
            return receipt
    _strike(folder)
    remember_soon(folder, redactor, tools=tools)
    return folder.receipt() or receipt


def _free_set_aside(folder: RunFolder) -> None:
    """What a supervisor that was killed had set aside for its last words is room for the receipt, on a disk that may be full."""
    with suppress(OSError):  # mostly: it has said them
        if not folder.is_supervised():
            (folder.path / records.EXIT_PART).unlink()


def _strike(folder: RunFolder) -> None:
    roll.strike(folder.path.parent.parent, folder.run_id)


def fence(folder: RunFolder) -> bool:
    """Close a lost run to a supervisor that comes too late, because its launcher was frozen: it finds that the run was started before, and starts nothing.

    False when it has come just now, so that the run is not lost.
    """
    with suppress(OSError):  # it is there, as it mostly is; or the folder cannot be written, by a supervisor either
        os.close(os.open(folder.path / records.CONTROL, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    return not folder.is_supervised()


def _masked(receipt: Receipt, redactor: Redactor) -> Receipt:
    """The receipt without secrets, wherever words of people, agents and programs stand. Not in the record's own words: a password may be `verified`."""
    text = redactor.text
    outcome = receipt.outcome
    changes: dict[str, Any] = {
        name: text(getattr(receipt, name))
        for name in ("agent_version", "agent_path", "model", "cwd", "permission_mode", "session_id", "text")
    }
    changes["argv"] = tuple(map(text, receipt.argv))
    changes["denials"] = tuple(map(text, receipt.denials))
    changes["data"] = redactor.json(receipt.data)
    changes["files"] = tuple(_masked_file(change, redactor) for change in receipt.files)
    changes["undo"] = receipt.undo and receipt.undo.model_copy(update={"note": text(receipt.undo.note)})
    changes["checks"] = tuple(check.model_copy(update={"what": text(check.what), "detail": text(check.detail)}) for check in receipt.checks)
    changes["asked"] = tuple(one.model_copy(update={"what": text(one.what), "note": text(one.note)}) for one in receipt.asked)
    changes["exit"] = receipt.exit.model_copy(update={"left_behind": tuple(map(text, receipt.exit.left_behind))})
    changes["outcome"] = outcome.model_copy(
        update={"summary": text(outcome.summary), "evidence": tuple(map(text, outcome.evidence)), "cure": text(outcome.cure)}
    )
    return receipt.model_copy(update=changes)


def _masked_file(change: FileChange, redactor: Redactor) -> FileChange:
    fields = {name: getattr(change, name) for name in ("path", "link_before", "link_after", "renamed_from")}
    return change.model_copy(update={name: redactor.text(value) for name, value in fields.items() if value is not None})


def _digests(folder: RunFolder, facts: ExitFacts | None) -> dict[str, StreamDigest]:
    dropped = facts.dropped if facts else {}
    return {
        name: folder.digest(name, dropped=dropped.get(name, 0))
        for name in (*records.STREAMS, records.CONTROL, records.INDEX_FILE, records.EXIT)
    }


def _files(request: RunRequest, plan: Plan, state: RunState, seen: Seen) -> tuple[FileChange, ...]:
    """What was expected, what was seen, and for what nobody could see the agent's word."""
    before = {str(resolved(name, cwd=request.cwd)): digest for name, digest in plan.before.items()}
    different = {change.path: change for change in seen.files}
    said = (str(resolved(path, cwd=request.cwd)) for path in state.files if not seen.covers(path))
    names = list(dict.fromkeys([*before, *different, *said]))[:_FILE_LIMIT]
    return tuple(different.get(name) or change_of(name, cwd=request.cwd, before=before.get(name)) for name in names)


def _standing(checks: Sequence[Check]) -> Standing:
    if any(check.passed is False for check in checks):
        return Standing.CONTRADICTED
    if checks and all(check.passed for check in checks):
        return Standing.VERIFIED
    return Standing.CLAIMED


def _asked(one: Settled) -> AskedFor:
    at = _utc(one.at) if one.at else None
    return AskedFor(kind=one.kind, what=one.what, decision=one.decision, by=one.by, at=at, note=one.note)


def _text_of(state: RunState) -> str:
    text = state.text
    if len(text) <= TEXT_LIMIT:
        return text
    half = TEXT_LIMIT // 2  # less than what the state keeps of either end
    return f"{text[:half]}\n[… {state.text_size - 2 * half:,} {LEFT_OUT} …]\n{text[-half:]}"


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
    undo: Undo | None = None,
    now: float,
) -> Receipt:
    """The receipt, not sealed yet, that follows from a run's journal and checks."""
    data: Any = None
    if state.finished is not None and state.finished.structured is not None:
        data = _value_of(bytes(state.finished.structured))
    exit_ = Exit()
    if facts is not None:
        left = tuple(leftover.command for leftover in facts.left_behind)
        exit_ = Exit(code=facts.code, signal=facts.signal, stopped_for=facts.stop_reason, left_behind=left, survivors=facts.survivors)
    receipt = Receipt(
        run_id=folder.run_id,
        request_digest=request.digest(),
        agent=request.agent,
        agent_version=state.agent_version or plan.agent_version,
        agent_path=plan.agent_path,
        model=state.model,
        argv=plan.argv,
        cwd=request.cwd,
        prompt_sha256=_prompt_digest(request),
        amended=request.amended,
        env_names=plan.env_names,
        permission_mode=state.permission_mode,
        session_id=state.session_id or plan.session_id,
        workspace_trusted=plan.workspace_trusted,
        rehearsed=plan.rehearsed,
        times=_times(folder, facts, now),
        outcome=judge(state, request=request, exit=facts, checks=checks),
        exit=exit_,
        usage=_usage(state.usage),
        cost=0.0 if plan.rehearsed and state.cost is not None else state.cost,  # a script's figures are nobody's money
        turns=state.turns,
        denials=tuple(denial.name for denial in state.denials),
        retries=state.retries,
        text=_text_of(state),
        data=data,
        files=files,
        checks=checks,
        standing=_standing(checks),
        undo=undo,
        asked=tuple(_asked(one) for one in state.asked),
        journal=journal,
        host=socket.gethostname(),
        cc_executor_version=__version__,
    )
    return Receipt.model_validate(_encodable(receipt.model_dump(mode="json")))


def _value_of(structured: bytes) -> Any:
    """The agent's structured output. What cannot be a JSON value of a receipt (a number beyond every double, brackets without end) stays a text."""
    try:
        value: Any = msgspec.json.decode(structured)
        canonical_digest(value)  # it goes as deep into the value as the seal does
    except (ValueError, RecursionError):
        return _salvaged(structured)
    return value if _is_shallow(value, _DEPTH_LIMIT) else structured.decode(errors="replace")


def _salvaged(structured: bytes) -> Any:
    """As well as can be: half a pair of surrogates is what JavaScript writes when a text was cut in the middle of an emoji."""
    text = structured.decode(errors="replace")
    try:
        value: Any = _encodable(json.loads(text))
        canonical_digest(value)
    except (ValueError, RecursionError):  # ValueError also: a number of more than 4300 digits
        return text
    return value if _is_shallow(value, _DEPTH_LIMIT) else text


def _is_shallow(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    items = cast("list[Any]", list(cast("dict[Any, Any]", value).values()) if isinstance(value, dict) else value)
    return depth > 0 and all(_is_shallow(item, depth - 1) for item in items)


def _encodable(value: Any) -> Any:
    """JSON in which every text can be written as UTF-8: a path that is none, or a prompt with half a pair of surrogates, has U+FFFD there."""
    match value:
        case str():
            return encodable(value)
        case dict():
            return {_encodable(name): _encodable(item) for name, item in cast("dict[str, Any]", value).items()}
        case list():
            return [_encodable(item) for item in cast("list[Any]", value)]
        case _:
            return value


def _prompt_digest(request: RunRequest) -> str:
    return hashlib.sha256(request.prompt.encode("utf-8", "surrogatepass")).hexdigest()


def _times(folder: RunFolder, facts: ExitFacts | None, now: float) -> Times:
    if facts is None:
        ended = _last_sign(folder, now)
        elapsed = round(ended - folder.created_at, 3)
        return Times(started=_utc(folder.created_at), ended=_utc(ended), elapsed=elapsed, active=elapsed)
    return Times(
        started=_utc(facts.started_at),
        ended=_utc(facts.ended_at),
        elapsed=round(facts.elapsed, 3),
        active=round(facts.active, 3),
        paused=round(facts.paused, 3),
        frozen=round(facts.frozen, 3),
    )


def _last_sign(folder: RunFolder, now: float) -> float:
    """When a lost run wrote for the last time: it may be sealed days later. Not before its start and not after `now`, whatever the clocks were set to."""
    signs = [folder.created_at]
    for name in (*records.STREAMS, records.CONTROL):
        with suppress(OSError):
            status = (folder.path / name).stat()
            if status.st_size:  # else nothing was ever written, and the file is our own fence
                signs.append(status.st_mtime)
    return max(folder.created_at, min(now, max(signs)))


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(round(seconds, 3), UTC)


def _usage(usage: Usage) -> TokenUsage:
    return TokenUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_creation_tokens=usage.cache_creation_tokens,
    )
