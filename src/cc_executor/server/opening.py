"""A notebook that is opened: a view whose run has ended without a page shows its end, and one whose kernel is gone says how to see the run.

Knows the contents manager's `get`. What is in the file stays as it is until somebody saves. An opened notebook makes nothing happen: what is put in is what
is kept here of runs of whoever opens it, and a name that is no run of theirs stands for nothing.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from cc_executor.model.receipt import Receipt
    from cc_executor.store.bundle import Json
    from cc_executor.store.home import StateHome
    from cc_executor.store.journal import RunFolder

_logger = logging.getLogger(__name__)

_WIDGET: Final = "application/vnd.jupyter.widget-view+json"
_SEALED_HERE: Final = 20  # runs of one notebook, at one opening; and as many whose view is made
_SHOWN_WHOLE: Final = 200_000_000  # bytes of a run whose view is made: some seconds. Of a longer one there is the card of its receipt
_OTHERS_TURN: Final = 60.0  # seconds in which whoever followed a run to its end seals it


def mending(get: Callable[..., Any], *, environ: Mapping[str, str], app: Any = None) -> Callable[..., Any]:
    """`get` of a contents manager, with the ends of runs in what it gives. Whatever goes wrong with them is logged, and the notebook is given as it is.

    `app`: whose sessions tell which kernel is which notebook's.
    """

    @functools.wraps(get)
    def opened(path: str, content: bool = True, *arguments: Any, **more: Any) -> Any:
        found = get(path, content, *arguments, **more)
        if inspect.isawaitable(found):
            return _later(found, path, environ, app)
        if _is_live(found):
            _mend(found["content"], path, environ)
        return found

    return opened


async def _later(found: Awaitable[Any], path: str, environ: Mapping[str, str], app: Any) -> Any:
    model = await found
    if _is_live(model):
        others, is_without_kernel = await _kernels(app, path)
        await asyncio.to_thread(_mend, model["content"], path, environ, others, is_without_kernel=is_without_kernel)
    return model


async def _kernels(app: Any, path: str) -> tuple[frozenset[str], bool]:
    """The process marks of this server's kernels that are other notebooks' and not this one's; and whether this one has none here."""
    from cc_executor.store.place import process_mark

    mine: dict[str, bool] = {}
    try:
        for session in await app.session_manager.list_sessions():
            kernel = session["kernel"]["id"]
            # A drive's name may stand before it, as jupyter-collaboration's does.
            is_this = session["path"].rpartition(":")[2].strip("/") == path.rpartition(":")[2].strip("/")
            mine[kernel] = mine.get(kernel, False) or is_this
        pids = [app.kernel_manager.get_kernel(kernel).provisioner.pid for kernel, is_mine in mine.items() if not is_mine]
    except Exception:  # managers of all kinds, whose kernels may be elsewhere: then nothing is known of them
        _logger.debug("which kernels are whose is not known", exc_info=True)
        return frozenset(), False
    return frozenset(process_mark(pid) for pid in pids if isinstance(pid, int)), not any(mine.values())


def _is_live(model: Any) -> bool:
    """Whether it is a notebook with a live view of ours; only then anything is imported."""
    return isinstance(model, dict) and any(True for _ in _live_marks(cast("dict[str, Any]", model).get("content")))


def _live_marks(content: Any) -> Iterator[Any]:
    with suppress(TypeError, KeyError, AttributeError):  # no notebook, or one that nobody could show
        for cell in content["cells"]:
            for output in cell.get("outputs", ()):
                mark = output.get("metadata", {}).get("cc_executor")
                if mark and (_WIDGET in output.get("data", ()) or mark.get("status") == "running"):
                    yield mark


def _mend(
    content: Any, path: str, environ: Mapping[str, str], others: frozenset[str] = frozenset(), *, is_without_kernel: bool = False
) -> None:
    from cc_executor.server.asker import for_who_asks
    from cc_executor.store.bundle import as_object
    from cc_executor.store.home import StateHome, state_path
    from cc_executor.store.notebook import lift, stored_bundles, stored_list_bundles, stored_receipts, without_dead_views
    from cc_executor.store.place import is_gone

    home = StateHome(state_path(environ))
    known, kept, sealed, made = stored_receipts(home), stored_bundles(home), 0, 0
    # Whoever would have sealed these has ended, so nobody's turn is taken.
    orphans = [mark.get("run_id") for mark in map(as_object, _live_marks(content)) if is_gone(mark.get("kernel"))]

    def receipt_of(run_id: str) -> Receipt | None:
        nonlocal sealed
        receipt = known(run_id)
        if receipt is None and sealed < _SEALED_HERE and _was_left(home, run_id, for_sure=run_id in orphans):
            sealed += 1
            receipt = _sealed(home, run_id, environ)
        return receipt

    def bundle_of(run_id: str) -> tuple[Json, Json] | None:
        nonlocal made
        bundle = kept(run_id)
        if bundle is None and made < _SEALED_HERE and (receipt := known(run_id)) is not None:
            made += 1
            bundle = _shown(home.find(run_id), receipt)
        return bundle

    try:
        lift(
            content,
            previous=None,
            receipt_of=for_who_asks(receipt_of),
            bundle_of=for_who_asks(bundle_of),
            list_bundle_of=for_who_asks(stored_list_bundles(home)),
        )
        without_dead_views(content, others=others, is_without_kernel=is_without_kernel)
    except Exception:  # the root of our part of an opening: the user is owed the notebook, and the log the reason
        _logger.exception("the ends of runs could not be put into %s; it is opened as it is", path)


def _was_left(home: StateHome, run_id: str, *, for_sure: bool) -> bool:
    """Whether a run has ended and nobody has sealed it or will: its kernel is gone (`for_sure`), or had its time.

    Not one with checks or hooks: these are not run by an opening.
    """
    from cc_executor.errors import CCExecutorError
    from cc_executor.store.home import RUN_ID
    from cc_executor.store.hooklog import HookLog

    with suppress(CCExecutorError):
        if RUN_ID.match(run_id):
            folder = home.find(run_id)
            facts = folder.exit_facts()
            is_left = facts is not None and (for_sure or time.time() - facts.ended_at > _OTHERS_TURN)
            return is_left and folder.request().verify is None and not HookLog(folder.path).exists()
    return False


def _sealed(home: StateHome, run_id: str, environ: Mapping[str, str]) -> Receipt | None:
    from cc_executor.errors import CCExecutorError
    from cc_executor.runtime.blocking import run_in_thread
    from cc_executor.runtime.run import Run

    async def finished() -> Receipt:
        return await (await Run.attach(home, run_id, environ=environ)).finish()

    try:
        return run_in_thread(finished())
    except CCExecutorError as error:
        _logger.warning("run %s could not be sealed: %s", run_id, error)
        return None


def _shown(folder: RunFolder, receipt: Receipt) -> tuple[Json, Json] | None:
    """What stays of a run whose receipt was made by somebody who shows nothing (a terminal, a client), kept for the next time."""
    from cc_executor.errors import CCExecutorError
    from cc_executor.model.bundle import static_bundle
    from cc_executor.model.transcript import Transcript
    from cc_executor.runtime.plan import removed, roots_of
    from cc_executor.runtime.reader import replay
    from cc_executor.shim import records
    from cc_executor.store.bundle import write_bundle

    if removed(folder) or folder.size(records.STDOUT) > _SHOWN_WHOLE:
        return None
    try:
        page = Transcript(roots=roots_of(folder.request().cwd))
        for events in replay(folder, agent=receipt.agent):
            page.feed(events)
        bundle = static_bundle(receipt, page)
        write_bundle(folder, bundle)
    except CCExecutorError as error:
        _logger.warning("the view of run %s could not be kept: %s", folder.run_id, error)
        return None
    return bundle
