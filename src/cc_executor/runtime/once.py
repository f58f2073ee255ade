"""Which run answers an unchanged cell: a pointer from what a request wants done to its newest run with outcome ok."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from cc_executor.errors import RunNotFound, StateUnusable
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import RunRequest
from cc_executor.runtime.plan import Plan, resolved
from cc_executor.runtime.workspace import is_trusted, own_settings
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder
from cc_executor.store.plain import read_plain, write_whole
from cc_executor.store.snapshot import SnapshotStore

_FOLDER: Final = "once"
_POINTER_LIMIT: Final = 64  # bytes; an id has 26, and there may be two


def remember(home: StateHome, receipt: Receipt, *, first: str = "") -> None:
    """Keep the pointer, if the run is fit to stand for a later one. `first`: the run that began what this one, a further attempt, has brought to its end."""
    if not receipt.outcome.ok:
        return
    folder = home.root / _FOLDER
    with suppress(OSError, RunNotFound, StateUnusable):  # a full disk costs the short cut, not the run
        name = _work(home.find(first or receipt.run_id).request())
        folder.mkdir(mode=0o700, exist_ok=True)
        write_whole(folder / name, f"{receipt.run_id} {first}".strip().encode("ascii"), sync=False)


def recall(home: StateHome, request: RunRequest) -> tuple[RunFolder, Receipt] | None:
    """The run that answers this request and its receipt; None if there is none, or if its receipt is not as it was sealed.

    Nor does a run answer that was undone, or one of whose expected files is not there any more, or where the folder's own settings would take effect now
    and did not then, or the other way round.
    """
    name = _work(request)
    try:
        run_id, _, first_id = read_plain(home.root / _FOLDER / name, _POINTER_LIMIT).decode("ascii").partition(" ")
        folder = home.find(run_id)
        kept, receipt = _as_sealed(folder)
        begun, begun_receipt = _as_sealed(home.find(first_id)) if first_id else (kept, receipt)
    except (OSError, ValueError, RunNotFound, StateUnusable):
        return None
    if not receipt.outcome.ok or _work(begun) != name or not (begun is kept or _goes_on(kept, begun, begun_receipt)):
        return None
    if any(is_undone(home, each) for each in {run_id, first_id or run_id}):
        return None
    if not all(os.path.lexists(resolved(name, cwd=request.cwd)) for name in request.expect):
        return None
    if receipt.workspace_trusted != is_trusted(request, home) and _has_settings(request, folder):
        return None
    return folder, receipt


def _as_sealed(folder: RunFolder) -> tuple[RunRequest, Receipt]:
    """What was asked of a run, and its receipt. Raises `ValueError` where there is none, or one of them is not as it was."""
    request, receipt = folder.request(), folder.receipt()
    if receipt is None or not receipt.is_intact or receipt.request_digest != request.digest():
        raise ValueError(folder.run_id)
    return request, receipt


def _goes_on(request: RunRequest, begun: RunRequest, receipt: Receipt) -> bool:
    """Whether a run is a further attempt at what another one has begun: the same, in that one's session or with its prompt."""
    same = request.model_copy(update={"prompt": begun.prompt, "resume": begun.resume})
    return _work(same) == _work(begun) and (
        begun.prompt in request.prompt if request.resume == begun.resume else request.resume == receipt.session_id
    )


def _work(request: RunRequest) -> str:
    """The digest of what is to be done. What it may cost is no part of that: a day's cap bounds each run by what is left at that moment."""
    return request.model_copy(update={"limits": request.limits.model_copy(update={"cost": None})}).digest()


def is_undone(home: StateHome, run_id: str) -> bool:
    """Whether an undo has taken away what the run did, or some of it; one that had nothing to take away has not."""
    act = SnapshotStore(home).act(home.folder(run_id))
    return act is not None and bool(act.changes) and (act.is_undone or not act.is_done)


def _has_settings(request: RunRequest, folder: RunFolder) -> bool:
    """Whether trust makes a difference: the working folder has settings of its own, or had some when it was run."""
    try:
        return bool(own_settings(request.cwd) or Plan.of(folder).own_settings)
    except StateUnusable:
        return True
