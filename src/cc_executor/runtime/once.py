"""Which run answers an unchanged cell: a pointer from what a request wants done to its newest run with outcome ok."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from cc_executor.errors import RunNotFound, StateUnusable
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import RunRequest
from cc_executor.runtime.plan import Plan
from cc_executor.runtime.workspace import is_trusted, own_settings
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder
from cc_executor.store.plain import read_plain, write_whole

_FOLDER: Final = "once"
_POINTER_LIMIT: Final = 64  # bytes; an id has 26


def remember(home: StateHome, receipt: Receipt) -> None:
    """Keep the pointer, if the run is fit to stand for a later one."""
    if not receipt.outcome.ok:
        return
    folder = home.root / _FOLDER
    with suppress(OSError, RunNotFound, StateUnusable):  # a full disk costs the short cut, not the run
        name = _work(home.find(receipt.run_id).request())
        folder.mkdir(mode=0o700, exist_ok=True)
        write_whole(folder / name, receipt.run_id.encode("ascii"), sync=False)


def recall(home: StateHome, request: RunRequest) -> tuple[RunFolder, Receipt] | None:
    """The run that answers this request and its receipt; None if there is none, or if its receipt is not as it was sealed.

    Nor does a run answer where the folder's own settings would take effect now and did not then, or the other way round.
    """
    name = _work(request)
    try:
        folder = home.find(read_plain(home.root / _FOLDER / name, _POINTER_LIMIT).decode("ascii"))
        kept = folder.request()
    except (OSError, ValueError, RunNotFound, StateUnusable):
        return None
    receipt = folder.receipt()
    if receipt is None or not receipt.is_intact or not receipt.outcome.ok or receipt.request_digest != kept.digest() or _work(kept) != name:
        return None
    if receipt.workspace_trusted != is_trusted(request, home) and _has_settings(request, folder):
        return None
    return folder, receipt


def _work(request: RunRequest) -> str:
    """The digest of what is to be done. What it may cost is no part of that: a day's cap bounds each run by what is left at that moment."""
    return request.model_copy(update={"limits": request.limits.model_copy(update={"cost": None})}).digest()


def _has_settings(request: RunRequest, folder: RunFolder) -> bool:
    """Whether trust makes a difference: the working folder has settings of its own, or had some when it was run."""
    try:
        return bool(own_settings(request.cwd) or Plan.of(folder).own_settings)
    except StateUnusable:
        return True
