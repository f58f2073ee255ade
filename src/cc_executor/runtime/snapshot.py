"""The looks before and after a run: taken, kept, and turned into what a receipt says of files. Knows requests and run folders; undoes nothing."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from cc_executor.errors import LaunchFailed, StateUnusable
from cc_executor.model.receipt import FileChange, Undo
from cc_executor.model.request import RunRequest
from cc_executor.model.tree import Change, Entry, Kind, Tree, changes, parents, renames
from cc_executor.store import begunundos
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder
from cc_executor.store.lookaround import FILES, FILES_AFTER, SECONDS, Look, TooLarge
from cc_executor.store.snapshot import AFTER, AGAIN, BEFORE, After, Before, SnapshotStore

logger = logging.getLogger(__name__)

SLACK: Final = 1.0  # seconds after a run's end in which its last words may still reach the disk
SECONDS_BESIDE: Final = 60.0  # seconds; nobody waits
SECONDS_AFTER: Final = 20.0  # seconds; nobody waits for an agent here, and what the run did is to be known
# Seconds for an undo or a sweep: mostly milliseconds, seconds with hundreds of large looks, for ever where it is frozen
PATIENCE: Final = 15.0
# Seconds for a sweep that began between `beginning` and the look before: this, the look and the supervisor's answer are within the grace of a start.
MOMENT: Final = 0.5
PATIENCE_AFTER: Final = 60.0  # seconds for a sweep; nobody waits for an agent, and without the look there is no undo
SAID: Final = 16 * 1024  # bytes; a reason is shorter, and a larger file is a look, which takes its time to read
NAMED: Final = 5  # paths in a sentence
NOTEBOOK: Final = "JPY_SESSION_NAME"  # how jupyter_server tells a kernel the path of its notebook
CURE: Final = "Let git ignore what is large, work in a smaller folder, or switch undo off (`--no-undo`) to hear no more of it."


@contextmanager
def beginning(request: RunRequest, *, home: StateHome, is_over: Callable[[], bool]) -> Generator[None]:
    """Keep undos out of the run's folder from the look before it to the end of the block, when it is seen to work there.

    An undo that is being carried out, and a sweep as far as it comes to its end, are waited for before there is a folder of the run: one that is not
    started for so long is taken for a lost one.

    Raises
    ------
    LaunchFailed
        The undo goes on still.
    """
    if not request.undo:
        yield
        return
    store = SnapshotStore(home)
    root = _root_of(request)
    with ExitStack() as stack:
        is_free = True
        with suppress(OSError, StateUnusable):  # the look meets the same, and says so
            store.prepare()
            store.outlast_sweep(patience=PATIENCE, is_over=is_over)
        with suppress(OSError, StateUnusable):  # a folder that cannot be written, which the look meets, too
            is_free = stack.enter_context(store.claims.beginning(root, patience=PATIENCE, is_over=is_over))
        if not is_free:
            raise LaunchFailed(
                f"Somebody undoes something in {os.fsdecode(root)}, and has not come to an end in {PATIENCE:.0f} s: let it go on, or end it and "
                "have the next `cc-executor undo` complete it. Then start again; nothing was started."
            )
        yield


def take_before(request: RunRequest, folder: RunFolder, *, home: StateHome, environ: Mapping[str, str]) -> None:
    """Look at the run's folder and keep what is there. Whatever hinders that costs the undo, not the run: the reason is kept instead."""
    if not request.undo:
        return
    started = time.monotonic()
    store = SnapshotStore(home)
    said = said_of_undos(store, _root_of(request))
    try:
        store.prepare()
        tree, reason = None, ""
        met = store.claims.at_work(_root_of(request))  # whoever ends while we look has written into what is seen
        try:
            with store.in_use(patience=MOMENT):
                tree = _before(request, store, environ)
                store.keep(folder, BEFORE, Before(tree, "", time.monotonic() - started, said))
        except TooLarge as error:
            reason = str(error)
        if tree is None:
            store.keep(folder, BEFORE, Before(None, f"{request.cwd} was not looked at: {reason}. {CURE}", time.monotonic() - started, said))
        else:
            store.claims.enter(folder.run_id, tree.root, met=met)
            if store.is_sweep_due(time.time()):
                threading.Thread(target=_sweep, args=(store,), name="cc_executor sweep", daemon=True).start()
    except (OSError, StateUnusable) as error:
        reason = _reason(error)
        logger.info("no snapshot for run %s: %s", folder.run_id, reason)
        with suppress(OSError):
            store.keep(folder, BEFORE, Before(None, f"{request.cwd} could not be looked at: {reason}.", time.monotonic() - started, said))


def _root_of(request: RunRequest) -> bytes:
    return os.fsencode(os.path.realpath(request.cwd))


def _before(request: RunRequest, store: SnapshotStore, environ: Mapping[str, str]) -> Tree:
    root = _root_of(request)
    state = os.fsencode(os.path.realpath(store.home.root))
    if root == state or root.startswith(state + b"/"):
        raise TooLarge("it belongs to the state folder of cc_executor")
    if reason := store.over(root, time.time()):
        raise TooLarge(
            f"{reason}, as was found less than {AGAIN / 60:.0f} minutes ago; after that, or when .gitignore has changed, it is looked at again"
        )
    look = _look(root, store, environ, known=store.known(root))
    try:
        tree = look.take()
    except TooLarge as error:
        if not look.is_slow:
            store.keep_over(root, str(error))  # it is not looked at again for a while
            raise
        store.blobs.flush()
        store.keep_known(Tree(root, look.taken, look.entries))
        threading.Thread(target=_read_on, args=(root, store.home, dict(environ)), name="cc_executor look", daemon=True).start()
        raise
    store.blobs.flush()
    store.keep_known(tree)
    return tree


def _read_on(root: bytes, home: StateHome, environ: Mapping[str, str]) -> None:
    """Read the rest of a folder beside the run, so that the next one's look is short. It is no look before this run, which works there already."""
    store = SnapshotStore(home)
    try:
        with store.in_use(patience=PATIENCE):
            look = _look(root, store, environ, known=store.known(root), seconds=SECONDS_BESIDE)
            try:
                tree = look.take()
            except TooLarge as error:
                store.keep_over(root, str(error))
                tree = Tree(root, look.taken, look.entries)
            store.blobs.flush()
            store.keep_known(tree)
    except (OSError, StateUnusable) as error:  # the next look says so
        logger.warning("%s could not be read on: %s", os.fsdecode(root), _reason(error))


def _look(
    root: bytes,
    store: SnapshotStore,
    environ: Mapping[str, str],
    *,
    known: Tree | None,
    before: Tree | None = None,
    seconds: float = SECONDS,
) -> Look:
    status = store.home.root.stat()
    notebook = environ.get(NOTEBOOK, "")
    # By its real folder, for the way to a home is often a link; and where it leads, if it is one itself.
    # No other name is resolved: that would need the current folder, which may be gone.
    names = (notebook, os.path.realpath(notebook)) if notebook.startswith("/") else ()
    skipped = frozenset(_below(root, "/", name) for name in names)
    return Look(
        root,
        blobs=store.blobs,
        known=known,
        before=before,
        outside=frozenset({(status.st_dev, status.st_ino)}),
        skipped=skipped,
        environ=environ,
        files=FILES if before is None else FILES_AFTER,
        seconds=seconds,
    )


def _sweep(store: SnapshotStore) -> None:
    try:
        count, size = store.sweep(time.time())
        logger.debug("swept %d contents of %d bytes", count, size)
    except Exception:  # root of the thread; the next one tries again
        logger.exception("the snapshots could not be swept")


def take_after(request: RunRequest, folder: RunFolder, *, ended_at: float, claimed: Iterable[str], environ: Mapping[str, str]) -> None:
    """Look again, when the run has ended. Once for each run: what was seen then is what an undo goes by."""
    if not request.undo:
        return
    store = SnapshotStore(StateHome(folder.path.parent.parent))
    if store.after(folder) is not None:
        return
    before = store.before(folder)
    if before is None or before.tree is None:
        return
    tree = before.tree
    shared = store.claims.met(folder.run_id)
    said = tuple(dict.fromkeys(path for name in claimed if (path := _below(tree.root, request.cwd, name))))
    try:
        with store.in_use(patience=PATIENCE_AFTER):
            try:
                seen = _look(tree.root, store, environ, known=tree, before=tree, seconds=SECONDS_AFTER).take()
                store.blobs.flush()
            except TooLarge as error:
                after = After(None, f"what the run left could not be looked at: {error}", shared=shared, claimed=said)
            else:
                store.keep_known(seen)
                after = After(seen, "", _late(tree, seen, ended_at), shared, said)
            store.keep(folder, AFTER, after)
    except (OSError, StateUnusable) as error:
        reason = _reason(error)
        logger.info("no look after run %s: %s", folder.run_id, reason)
        with suppress(OSError):
            store.keep(folder, AFTER, After(None, f"what the run left could not be looked at: {reason}", shared=shared, claimed=said))
    store.claims.leave(folder.run_id)


def _reason(error: OSError | StateUnusable) -> str:
    return ((error.strerror if isinstance(error, OSError) else "") or str(error)).rstrip(".")


def _late(before: Tree, after: Tree, ended_at: float) -> tuple[bytes, ...]:
    """What was changed after the run had ended and before this look: mostly nothing, for the look follows at once."""
    end = int((ended_at + SLACK) * 1e9)
    if after.taken <= end:
        return ()
    found: list[bytes] = []
    folder = Path(os.fsdecode(after.root))
    top = next(place for place in (folder, *folder.parents) if place.is_dir()).stat().st_mtime_ns
    for change in changes(before, after):
        path = change.path
        if change.after is not None:
            is_late = change.after.ctime > end
        else:
            above = next((after.entries[name].mtime for name in parents(path) if name in after.entries), None)
            is_late = (top if above is None else above) > end  # nobody knows when it was removed, but when its folder was changed
        if is_late:
            found.append(path)
    return tuple(found)


def _below(root: bytes, cwd: str, name: str) -> bytes:
    """The path in the tree that somebody means by `name`; nothing for one outside of it."""
    try:
        full = os.fsencode(os.path.join(cwd, os.path.expanduser(name)))
        folder, _, last = os.path.normpath(full).rpartition(b"/")
        path = os.path.join(os.path.realpath(folder), last)
    except (OSError, ValueError):
        return b""
    return path[len(root) + 1 :] if path.startswith(root.rstrip(b"/") + b"/") else b""


def remark(folder: RunFolder) -> str:
    """What is to be said at the beginning of a run about undo in its folder; mostly nothing."""
    return " ".join(filter(None, (_said_of_look(folder), _said_of_others(folder))))


def said_of_undos(store: SnapshotStore, root: bytes) -> str:
    """What is to be said of undos in a folder that were cut short, with how each is completed; mostly nothing."""
    try:
        acts = store.cut_short(root)
    except (OSError, StateUnusable) as error:
        logger.info("nobody knows whether an undo was cut short: %s", _reason(error))
        return ""
    found: list[str] = []
    for act in acts[:NAMED]:
        what = "An undo" if act.is_undone else "Taking back an undo"
        where = " and ".join(map(os.fsdecode, act.roots))
        found.append(
            f"{what} of run {act.runs[0]} was cut short in {where}, where a part of the files is not as it was: "
            f"`{act.completing}` completes it, and leaves alone what is changed until then."
        )
    return " ".join(found)


def _said_of_others(folder: RunFolder) -> str:
    store = SnapshotStore(StateHome(folder.path.parent.parent))
    if not any(begunundos.noted(store.path)):  # mostly; a request may be long
        return ""
    try:
        return said_of_undos(store, _root_of(folder.request()))
    except (OSError, StateUnusable):  # the run says itself that it cannot be read
        return ""


def _said_of_look(folder: RunFolder) -> str:
    try:
        if (folder.path / BEFORE).stat().st_size > SAID:
            return ""
    except OSError:  # no look was asked for
        return ""
    before = SnapshotStore(StateHome(folder.path.parent.parent)).before(folder)
    return f"No undo for this run: {before.reason}" if before is not None and before.tree is None else ""


class Seen:
    """What both looks say of a run, for its receipt.

    Attributes
    ----------
    undo : Undo or None
        None when no look was asked for.
    files : list of FileChange
        What is different, sorted by path; empty without both looks.
    """

    def __init__(self, folder: RunFolder, request: RunRequest) -> None:
        self.undo: Undo | None = None
        self.files: list[FileChange] = []
        self._tree: Tree | None = None
        self._cwd = request.cwd
        if not request.undo:
            return
        store = SnapshotStore(StateHome(folder.path.parent.parent))
        before, after = store.before(folder), store.after(folder)
        if before is None or before.tree is None:
            self.undo = Undo(ready=False, note=before.reason if before is not None else "the look before the run is not kept.")
        elif after is None or after.tree is None:
            self.undo = Undo(ready=False, note=after.reason if after is not None else "nobody has looked at what the run left.")
        else:
            self._tree = before.tree
            found = changes(before.tree, after.tree)
            moved = renames(found)
            self.files = [self._file(change, moved) for change in found if _is_told(change)]
            self.undo = Undo(ready=True, note=_note(found, after), changes=len(self.files), shared_with=after.shared)
        if before is not None and before.remark:
            self.undo = self.undo.model_copy(update={"note": "; ".join(filter(None, (self.undo.note, before.remark)))})

    def covers(self, name: str) -> bool:
        """Whether the looks have seen what stands at a path, so that nobody has to be asked about it."""
        if self._tree is None:
            return False
        path = _below(self._tree.root, self._cwd, name)
        return bool(path) and self._tree.is_known(path)

    def _file(self, change: Change, moved: Mapping[bytes, bytes]) -> FileChange:
        was, is_ = change.before, change.after
        from_ = moved.get(change.path)
        modes = _modes(was, is_)
        return FileChange(
            path=self._full(change.path),
            before=_digest(was),
            after=_digest(is_),
            size=is_.size if is_ is not None and is_.kind is Kind.FILE else None,
            mode_before=modes[0],
            mode_after=modes[1],
            link_before=_target(was),
            link_after=_target(is_),
            renamed_from=None if from_ is None else self._full(from_),
            change="created" if was is None else "deleted" if is_ is None else "changed",
        )

    def _full(self, path: bytes) -> str:
        return os.path.join(self._cwd, os.fsdecode(path))


def _is_told(change: Change) -> bool:
    """Whether people call it a change: a new folder is told by what is in it."""
    return any(entry is not None and entry.kind is not Kind.FOLDER for entry in (change.before, change.after)) or (
        change.before is not None and change.after is not None
    )


def _digest(entry: Entry | None) -> str | None:
    return entry.content.hex() if entry is not None and entry.kind is Kind.FILE and entry.content else None


def _target(entry: Entry | None) -> str | None:
    return os.fsdecode(entry.content) if entry is not None and entry.kind is Kind.LINK else None


def _modes(was: Entry | None, is_: Entry | None) -> tuple[str | None, str | None]:
    if was is None or is_ is None or Kind.LINK in {was.kind, is_.kind} or was.mode == is_.mode:
        return None, None
    return f"{was.mode:03o}", f"{is_.mode:03o}"


def _note(found: Iterable[Change], after: After) -> str:
    notes: list[str] = []
    unkept = [change.path for change in found if change.before is not None and not change.before.is_read]
    if unkept:
        notes.append(f"not to be brought back, for they are too large to be kept: {names(unkept)}")
    if after.late:
        notes.append(f"changed after the run had ended, perhaps by you: {names(after.late)}")
    if after.shared:
        notes.append(
            f"{len(after.shared)} other {'run' if len(after.shared) == 1 else 'runs'} worked in this folder at the same time: the files may be theirs"
        )
    return "; ".join(notes)


def names(paths: Iterable[bytes]) -> str:
    """Some paths in a sentence."""
    every = sorted(paths)
    more = f" and {len(every) - NAMED:,} more" if len(every) > NAMED else ""
    return ", ".join(os.fsdecode(path) for path in every[:NAMED]) + more
