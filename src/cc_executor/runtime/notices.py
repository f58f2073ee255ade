"""Telling people who have gone away: that a run or a list has ended, or waits for an answer. Imported where somebody is to be told, and nowhere else.

Whoever comes to an end first makes its mark and tells; a kernel, a server and a terminal that watch the same run tell once. Telling is done beside
everything else, and what becomes of it changes nothing.
"""

from __future__ import annotations

import atexit
import json
import logging
import shlex
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cc_executor.errors import CCExecutorError, InvalidRequest
from cc_executor.model.ask import Ask
from cc_executor.model.event import QuestionAsked
from cc_executor.model.hook import Hook, Moment
from cc_executor.model.listrecord import Begun, Closed, HookTold, ListState, ListStatus, Record, Resumed, RetryAsked
from cc_executor.model.notify import BROWSER, COMMAND, Notify, NotifyOn, command_words, message, notify_from, shown, split_targets
from cc_executor.model.receipt import Receipt
from cc_executor.policy.redact import Redactor, secret_values
from cc_executor.runtime import webhook
from cc_executor.runtime.control import command
from cc_executor.runtime.errand import in_thread
from cc_executor.runtime.hookwork import Surroundings, is_inside_hook, perform
from cc_executor.store import notices
from cc_executor.store.journal import RunFolder
from cc_executor.store.place import NOTIFY_SECRET, NOTIFY_VARIABLE
from cc_executor.store.tasklists import ListFolder

logger = logging.getLogger(__name__)

AFTER: Final = "CC_EXECUTOR_NOTIFY_AFTER"
ON: Final = "CC_EXECUTOR_NOTIFY_ON"

PATIENCE: Final = 2.0  # seconds that an end waits, so that what goes wrong at once is still seen where the run was shown
LAST_PATIENCE: Final = 40.0  # seconds that a process which ends waits; three attempts of 10 s, and the time between them
GRACE: Final = 2.0  # seconds; code that answers does so at once, and nobody is to be called for that
COMMAND_TIMEOUT: Final = 10.0  # seconds, as for a hook

_MOMENTS: Final = {NotifyOn.DONE: Moment.AFTER_RUN, NotifyOn.FAILED: Moment.ON_ERROR, NotifyOn.INPUT: Moment.ON_EVENT}


# --- who is told ------------------------------------------------------------------------------------------------------


def wish_of(
    targets: object,
    *,
    after: object = None,
    on: object = None,
    environ: Mapping[str, str],
    what: str = "notify",
) -> Notify | None:
    """Whom to tell: as it was said, and for what was not said as the environment says; None where there is nobody, and inside of a hook.

    Raises
    ------
    InvalidRequest
    """
    if is_inside_hook(environ):
        return None
    if targets is None and (text := environ.get(NOTIFY_VARIABLE, "").strip()):
        what = NOTIFY_VARIABLE
        try:
            targets = [] if text.lower() == "none" else split_targets(text)
        except (ValueError, RecursionError):
            raise InvalidRequest(f"The environment variable {NOTIFY_VARIABLE} is no JSON list of texts: change or unset it.") from None
    if targets is None and after is None and on is None:
        return None
    targets = BROWSER if targets is None else targets
    what_after, what_on = "notify_after", "notify_on"
    if after is None and (text := environ.get(AFTER, "").strip()):
        what_after = AFTER
        try:
            after = float(text)
        except ValueError:
            raise InvalidRequest(
                f"The environment variable {AFTER} is {text!r}; it must be a number of seconds. Change or unset it."
            ) from None
    if on is None and (text := environ.get(ON, "").strip()):
        what_on, on = ON, text
    secret = environ.get(NOTIFY_SECRET, "")
    return notify_from(targets, after=after, on=on, environ=environ, secret=secret, what=what, what_after=what_after, what_on=what_on)


# --- telling ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Whence:
    """Where somebody is told from.

    Attributes
    ----------
    folder : Path
        Of the run or list, for the marks.
    names : mapping of str to str
        What a command is told by its environment.
    say : callable
        Takes a sentence about what went wrong; from any thread.
    """

    folder: Path
    environ: Mapping[str, str]
    names: Mapping[str, str]
    say: Callable[[str], object]


_telling: Final[set[threading.Thread]] = set()


def _see_off() -> None:
    until = time.monotonic() + LAST_PATIENCE
    for thread in list(_telling):
        thread.join(max(0.0, until - time.monotonic()))


atexit.register(_see_off)


def tell(wish: Notify, event: NotifyOn, about: dict[str, Any], *, mark: Path, key: str, whence: Whence) -> list[threading.Thread]:
    """Tell everybody, each in a thread that the end of the process waits for. The mark was made before."""
    redactor = Redactor(secret_values(whence.environ))
    about = redactor.json(message(event, at=datetime.now(UTC), **about))
    threads: list[threading.Thread] = []
    for number, target in enumerate(wish.targets):

        def work(target: str = target, number: int = number) -> None:
            try:
                why = _told(target, about, wish, key=f"{key}-{number}", moment=_MOMENTS[event], whence=whence, redactor=redactor)
                notices.note(mark, f"{event.value} {shown(target)}: {why or 'told'}")
                if why:
                    logger.warning("%s: %s could not be told: %s", whence.folder.name, shown(target), why)
                    whence.say(f"{shown(target)} could not be told: {why}")
            except Exception as error:  # noqa: BLE001 - root of a thread: what it tells of stands. No trace, for that could name an address
                logger.error("%s: %s could not be told (%s)", whence.folder.name, shown(target), type(error).__name__)
            finally:
                _telling.discard(threading.current_thread())

        # Daemon, and waited for at the end: a process that somebody kills is not held up.
        thread = threading.Thread(target=work, name="cc_executor notify", daemon=True)
        _telling.add(thread)
        try:
            thread.start()
        except RuntimeError as error:  # the machine has no room for one more
            _telling.discard(thread)
            notices.note(mark, f"{event.value} {shown(target)}: {error}")
            whence.say(f"{shown(target)} could not be told: {error}")
        else:
            threads.append(thread)
    return threads


def _told(target: str, about: Mapping[str, Any], wish: Notify, *, key: str, moment: Moment, whence: Whence, redactor: Redactor) -> str:
    """Why somebody could not be told, or an empty text."""
    if not target.startswith(COMMAND):
        body = json.dumps(about, separators=(",", ":")).encode()
        return webhook.send(target, body, message_id=f"msg_{key}", secret=wish.secret, guarded=wish.guarded, hosts=wish.hosts)
    words = command_words(target)
    # `exec` and quoted words: no shell of ours reads what they hold.
    hook = Hook(moment=moment, command=f"exec {shlex.join(words)}", name=shown(target), timeout=COMMAND_TIMEOUT)
    where = Surroundings(environ=whence.environ, cwd=whence.environ.get("HOME", "/"), names=whence.names, mark=f"{key}-notify")
    report = perform(hook, about, where=where, redactor=redactor, unwanted=threading.Event())
    return "" if report.ok else report.detail or report.status.value


async def _a_moment(threads: list[threading.Thread]) -> None:
    if not threads:
        return

    def wait() -> None:
        until = time.monotonic() + PATIENCE
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    await in_thread(wait, takes_long=True)


# --- runs -------------------------------------------------------------------------------------------------------------


class RunNotices:
    """What one process tells of one run.

    Parameters
    ----------
    folder : RunFolder
    wish : Notify
    environ : mapping of str to str
        What commands are chosen theirs from.
    say : callable
        As for `Whence`.
    """

    def __init__(self, folder: RunFolder, wish: Notify, *, environ: Mapping[str, str], say: Callable[[str], object]) -> None:
        self._folder = folder
        self._wish = wish
        names = {"CC_RUN_ID": str(folder.run_id)} | ({"CC_LIST_ID": wish.list_id} if wish.list_id else {})
        self._whence = Whence(folder.path, environ, names, say)
        self._seen: set[str] = set()
        self._is_over = threading.Event()

    def asked(self, asks: tuple[Ask, ...]) -> None:
        """Take note of what waits for an answer; microseconds, from the loop."""
        if NotifyOn.INPUT not in self._wish.on or not self._wish.targets:
            return
        for ask in asks:
            if ask.ask_id not in self._seen:
                self._seen.add(ask.ask_id)
                with suppress(RuntimeError):  # no room for one more thread; the view asks all the same
                    threading.Thread(target=self._ask_later, args=(ask,), name="cc_executor notify", daemon=True).start()

    def dismiss(self) -> None:
        """The run is over, or nobody here follows it any more."""
        self._is_over.set()

    def _ask_later(self, ask: Ask) -> None:
        since = self._wish.since or self._folder.created_at
        if self._is_over.wait(max(GRACE, since + self._wish.after - time.time())):
            return
        try:
            if ask.ask_id not in command(self._folder, "status").get("asks", ()):
                return
        except CCExecutorError:  # it has ended
            return
        key = f"ask-{ask.ask_id}"
        mark = notices.claim(self._folder.path, key)
        if mark is None:
            return
        about = {
            "ask": "question" if isinstance(ask, QuestionAsked) else "permission",
            "run_id": str(self._folder.run_id),
            "list_id": self._wish.list_id,
            "name": self._wish.name,
            "seconds": max(0.0, time.time() - since),
        }
        key = f"{self._folder.run_id}-{mark.name.partition('.')[2]}"
        tell(self._wish, NotifyOn.INPUT, about, mark=mark, key=key, whence=self._whence)

    async def ended(self, receipt: Receipt) -> None:
        """Tell of the end, unless somebody has."""
        self.dismiss()
        event = NotifyOn.DONE if receipt.outcome.ok else NotifyOn.FAILED
        wish, folder = self._wish, self._folder
        if event not in wish.on or receipt.times.elapsed < wish.after:
            await in_thread(lambda: notices.forget(folder.path))
            return
        mark = await in_thread(lambda: notices.claim(folder.path, "end"))
        await in_thread(lambda: notices.forget(folder.path))
        if mark is None:
            return
        about = {
            "outcome": receipt.outcome.kind.value,
            "run_id": str(folder.run_id),
            "seconds": receipt.times.elapsed,
            "cost": receipt.cost,
            "rehearsed": receipt.rehearsed is not None,
        }
        await _a_moment(tell(wish, event, about, mark=mark, key=f"{folder.run_id}-end", whence=self._whence))


# --- lists ------------------------------------------------------------------------------------------------------------


def wish_for_runs(folder: ListFolder, name: str) -> Notify | None:
    """What is told of the runs of a list: their questions, for of ends the list speaks."""
    wish = notices.wish_in(folder.path)
    if wish is None or NotifyOn.INPUT not in wish.on or not wish.targets:
        return None
    began = _round(folder.records())[0]
    return wish.model_copy(update={"on": (NotifyOn.INPUT,), "since": began or time.time(), "list_id": str(folder.list_id), "name": name})


async def tell_of_list(folder: ListFolder, state: ListState, name: str, *, environ: Mapping[str, str]) -> None:
    """Tell of a list's end, unless somebody has. By whoever runs the list."""
    wish = await in_thread(lambda: notices.wish_in(folder.path))
    if wish is None or state.status is ListStatus.OPEN:
        return
    event = NotifyOn.DONE if state.status is ListStatus.OK else NotifyOn.FAILED
    began, closed = await in_thread(lambda: _round(folder.records()))
    seconds = closed - began if began is not None and closed is not None else 0.0
    mark = None
    if event in wish.on and closed is not None and seconds >= wish.after:
        key = f"end-{int(closed * 1000)}"
        mark = await in_thread(lambda: notices.claim(folder.path, key))
    await in_thread(lambda: notices.forget(folder.path))
    if mark is None:
        return

    def say(sentence: str) -> None:
        with suppress(CCExecutorError):  # it is logged, too
            folder.append(HookTold(at=time.time(), text=sentence))

    about = {"outcome": state.status.value, "list_id": str(folder.list_id), "name": name, "seconds": seconds, "cost": state.spent}
    whence = Whence(folder.path, environ, {"CC_LIST_ID": str(folder.list_id)}, say)
    key = f"{folder.list_id}-{mark.name.partition('.')[2]}"
    await _a_moment(tell(wish, event, about, mark=mark, key=key, whence=whence))


def _round(records: Iterable[Record]) -> tuple[float | None, float | None]:
    """When the list's newest round began its first task, and when it was closed."""
    began: float | None = None
    closed: float | None = None
    is_over = False
    for record in records:
        match record:
            case Closed():
                closed, is_over = record.at, True
            case Resumed() | RetryAsked() if is_over:
                began, is_over = None, False
            case Begun():
                began = began or record.at
            case _:
                pass
    return began, closed
