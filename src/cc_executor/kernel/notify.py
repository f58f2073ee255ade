"""Who is told of what a cell runs: the settings and the line's options as one wish, and what the live view's bell needs of it."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, cast

from cc_executor.kernel.config import CCExecutor

if TYPE_CHECKING:
    from cc_executor.model.notify import Notify

BROWSER: Final = "browser"
NONE: Final = "none"
OFF: Final = "off"  # for the bell


def notify_of(settings: CCExecutor, options: argparse.Namespace | None = None) -> Notify | None:
    """Who is told; None for what nobody has changed: the view's bell alone.

    Raises
    ------
    InvalidRequest
    """
    given = {
        name: getattr(settings, name) if options is None or getattr(options, name) is None else getattr(options, name)
        for name in ("notify", "notify_after", "notify_on")
    }
    if all(value == CCExecutor.class_traits()[name].default() for name, value in given.items()):
        return None
    named: object = None if options is None else options.notify
    several = [named] if isinstance(named, str) else named  # a function may be given one alone
    if isinstance(several, list | tuple) and BROWSER in settings.notify and NONE not in several:
        given["notify"] = [*cast("Sequence[object]", several), BROWSER]  # it costs nothing, and is off until somebody presses it
    from cc_executor.runtime.notices import wish_of  # where nobody is to be told, nothing of it is loaded

    return wish_of(given["notify"], after=given["notify_after"], on=given["notify_on"], environ=os.environ)


def bell_of(notify: Notify | None) -> str:
    """What `static/notify.js` is told: nothing for what holds without anybody's word."""
    if notify is None:
        return ""
    return json.dumps({"after": notify.after, "on": notify.on}) if notify.browser else OFF
