"""A callable of a task list, called: whatever the user's own code returns or raises becomes a value. Knows nothing of lists and journals."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Final

import msgspec

from cc_executor.model.hook import call_named
from cc_executor.model.listrecord import TEXT_LIMIT
from cc_executor.model.reference import Made
from cc_executor.runtime.errand import in_thread, is_cancelled

logger = logging.getLogger(__name__)

_HERE: Final = str(Path(__file__).parent)

Call = Callable[..., object]

DATA_LIMIT: Final = 64 * 1024  # bytes of structured data that the list's journal keeps; a run's receipt has all of it, a callable has none
CUT_CHARS: Final = 100  # for the line that says how much of a text is left out
ERROR_LIMIT: Final = 2_000  # characters of an error's own words: a sentence for a row, and not a dump


class Returned(msgspec.Struct, frozen=True):
    """What became of a call.

    Attributes
    ----------
    text : str
        What it returned, as text.
    data
        The same as JSON holds it; None for text, and for what JSON cannot hold.
    error : str
        What it raised, in words; empty when it ended well.
    seconds : float
    """

    text: str = ""
    data: Any = None
    error: str = ""
    seconds: float = 0.0


async def call(work: Call, made: Mapping[str, Made]) -> Returned:
    """Call `work`: an async function on this loop, anything else on a thread; what a thread brings home and can be awaited is awaited here.

    `made` is given to whoever takes an argument that has no value yet. Raises nothing but the cancellation of the one who waits.
    """
    started = time.monotonic()

    def ended(text: str = "", data: Any = None, error: str = "") -> Returned:
        return Returned(text, data, error, time.monotonic() - started)

    arguments = (made,) if _takes_needs(work) else ()
    try:
        value = work(*arguments) if inspect.iscoroutinefunction(work) else await in_thread(lambda: work(*arguments), takes_long=True)
        if inspect.isawaitable(value):
            value = await value
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        return ended(error=_words(error))  # its own
    except SystemExit as error:  # a `main()` that ends as programs do; it must not take the kernel along
        return ended() if error.code in (None, 0) else ended(error=_words(error))
    except (KeyboardInterrupt, Exception) as error:  # the user's own code: the list is owed an answer, the developer the trace
        logger.error("%s, which a task list calls, raised", call_named(work), exc_info=(type(error), error, _beyond_us(error)))
        return ended(error=_words(error))
    if isinstance(value, PurePath):  # the name of a file, as a text is one
        value = str(value)
    data = None if isinstance(value, str) else _plain(value)
    text = value if isinstance(value, str) else "" if value is None else _shown(value)
    size, what, limit = (len(text), "characters", TEXT_LIMIT) if data is None else (len(json.dumps(data)), "bytes of JSON", DATA_LIMIT)
    if size > limit:  # cut off, it would be another result
        return ended(error=f"It returned {size:,} {what}, and a list keeps {limit:,}: write it to a file, and return the file's name.")
    if len(text) > TEXT_LIMIT:  # the data is whole
        kept = TEXT_LIMIT - CUT_CHARS
        text = f"{text[:kept]}\n[cut here: {len(text) - kept:,} of {len(text):,} characters are left out]"
    return ended(text, data)


def _beyond_us(error: BaseException) -> TracebackType | None:
    """The trace from the user's own code on."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_HERE):
        trace = trace.tb_next
    return trace


def _words(error: BaseException) -> str:
    try:
        said = str(error)
    except Exception:  # noqa: BLE001 - the user's own class; its name says something, too
        said = ""
    return f"{type(error).__name__}: {said}"[:ERROR_LIMIT] if said else type(error).__name__


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - as above; also for what is nested too deeply
        return f"<{type(value).__name__}>"


def _plain(value: object) -> Any:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return None


def _takes_needs(work: Call) -> bool:
    try:
        parameters = inspect.signature(work).parameters.values()
    except (TypeError, ValueError):  # written in C
        return False
    kinds = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
    first = next((parameter for parameter in parameters if parameter.kind in kinds), None)
    # In ``lambda name=name: work(name)`` somebody has given it a value.
    return first is not None and (first.default is inspect.Parameter.empty or first.default is None or isinstance(first.default, Mapping))
