"""Who is told when a run or a list has ended, or waits for somebody: as people write it, as it is kept, and the one message that is sent. Sends nothing.

A message says which run or list, how it ended, how long it took and what it cost. There is no field for a prompt, for an agent's words, or for a path.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, cast
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict

from cc_executor.errors import InvalidRequest

AFTER: Final = 30.0  # seconds; whoever waits that long may have gone away
AFTER_LIMIT: Final = 1e9  # seconds; thirty years are as good as for ever
BROWSER: Final = "browser"
NONE: Final = "none"  # nobody, whatever the settings say
COMMAND: Final = "command:"
VARIABLE: Final = "env:"
TARGETS_LIMIT: Final = 20
TARGET_CHARS: Final = 4096
SECRET_BYTES: Final = range(24, 65)  # as Standard Webhooks 1.0.0 has it, section "Signature scheme"
_PREFIX: Final = "whsec_"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PRINTABLE: Final = re.compile(r"[!-~]+")
_CURE: Final = "browser, command:…, an https:// address, or env:NAME of a variable that holds one"


class NotifyOn(StrEnum):
    """What somebody is told of."""

    DONE = "done"
    FAILED = "failed"  # every end that is not ok
    INPUT = "input"  # the agent wants leave or has a question


class Notify(BaseModel):
    """Whom to tell of what.

    Attributes
    ----------
    targets : tuple of str
        Commands (`COMMAND` and the words of one) and addresses. They may hold secrets: see `shown`.
    browser : bool
        Whether live views offer their bell.
    after : float
        Seconds that a run or a list must have lasted.
    on : tuple of NotifyOn
    secret : str
        By which messages to addresses are signed.
    guarded : bool
        Somebody else's wish: no address that only this machine or its network can reach, but for `hosts`.
    hosts : tuple of str
        Those that an administrator has named.
    since : float or None
        When what is told of began, seconds since the epoch; None: with the run.
    list_id, name : str
        Of the list that a run belongs to.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    targets: tuple[str, ...] = ()
    browser: bool = True
    after: float = AFTER
    on: tuple[NotifyOn, ...] = tuple(NotifyOn)
    secret: str = ""
    guarded: bool = False
    hosts: tuple[str, ...] = ()
    since: float | None = None
    list_id: str = ""
    name: str = ""


def notify_from(
    targets: object,
    *,
    after: object = None,
    on: object = None,
    environ: Mapping[str, str],
    secret: str = "",
    what: str = "notify",
    what_after: str = "notify_after",
    what_on: str = "notify_on",
) -> Notify:
    """What people wrote, checked.

    Parameters
    ----------
    targets : str or sequence of str
    after : float, optional
        Seconds; 30 if not given.
    on : str or sequence of str, optional
        Of done, failed, input; all if not given.
    environ : mapping of str to str
        Where ``env:NAME`` looks.
    secret : str
        ``whsec_`` and base64; empty: messages are not signed.
    what, what_after, what_on : str
        Where each was said, for the sentence: the option's name, or a variable's.

    Raises
    ------
    InvalidRequest
        One sentence with the cure, and nothing of an address but its host.
    """
    several = _texts(targets, what)
    if len(several) > TARGETS_LIMIT:
        raise InvalidRequest(f"{what}: {len(several)} targets are more than the limit of {TARGETS_LIMIT}.")
    if len(several) > 1 and any(text.strip() == NONE for text in several):
        raise InvalidRequest(f"{what}: {NONE} is for nobody at all, and somebody else is named beside it: leave one of them out.")
    given = [_from_variable(text.strip(), environ, what) for text in several if text.strip() not in {"", NONE}]
    found = tuple(dict.fromkeys(_checked(text, what) for text in given if text not in {BROWSER, NONE}))
    several_words = on.split(",") if isinstance(on, str) else tuple(NotifyOn) if on is None else on
    words = [word.strip() for word in _texts(several_words, what_on)]
    if unknown := [word for word in words if word not in set(NotifyOn)]:
        raise InvalidRequest(f"{what_on} takes {', '.join(NotifyOn)} (given: {unknown[0][:40]!r}).")
    seconds = AFTER if after is None else after
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= AFTER_LIMIT:
        raise InvalidRequest(f"{what_after} must be a number of seconds, 0 or more (given: {str(seconds)[:40]}).")
    chosen = tuple(word for word in NotifyOn if word in words)
    if secret and len(secret_bytes(secret)) not in SECRET_BYTES:
        raise InvalidRequest(
            f"The secret in CC_EXECUTOR_NOTIFY_SECRET must be {_PREFIX} and 24 to 64 bytes in base64, as `openssl rand -base64 32` makes them."
        )
    return Notify(targets=found, browser=BROWSER in given, after=float(seconds), on=chosen, secret=secret)


def secret_bytes(secret: str) -> bytes:
    """The key in a secret as Standard Webhooks writes it; nothing if it is none."""
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True) if secret.startswith(_PREFIX) else b""
    except ValueError:
        return b""


def split_targets(text: str) -> list[str]:
    """Several targets in one text: a JSON list, or with commas between them. Raises `ValueError` for a list that is none."""
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    found: object = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(each, str) for each in cast("list[object]", found)):
        raise ValueError("not a list of texts")
    return cast("list[str]", found)


def _texts(value: object, what: str) -> Sequence[str]:
    several = (value,) if isinstance(value, str) else value
    if not isinstance(several, list | tuple) or not all(isinstance(each, str) for each in cast("Sequence[object]", several)):
        raise InvalidRequest(f"{what} must be a text or a list of texts, not {type(value).__name__}.")
    return cast("Sequence[str]", several)


def _from_variable(text: str, environ: Mapping[str, str], what: str) -> str:
    if not text.startswith(VARIABLE):
        return text
    name = text.removeprefix(VARIABLE)
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"{what}: env: needs the name of an environment variable, as env:TEAM_WEBHOOK.")
    value = environ.get(name, "").strip()
    if not value:
        raise InvalidRequest(f"{what}: the environment variable {name} is not set. Set it to the address, or leave env:{name} out.")
    return value


def _checked(text: str, what: str) -> str:
    if len(text) > TARGET_CHARS:
        raise InvalidRequest(f"{what}: a target may have {TARGET_CHARS:,} characters.")
    if text.startswith(COMMAND):
        if not command_words(text, what):
            raise InvalidRequest(f"{what}: command: needs a command, as command:notify-send done.")
        return text
    if "://" not in text:
        # Whatever it is, it may be secret: an address without its beginning, say.
        raise InvalidRequest(f"{what}: one of the targets is none. A target is {_CURE}.")
    parts = address(text)
    if parts is None or parts.scheme not in {"https", "http"}:
        raise InvalidRequest(f"{what}: one of the addresses is none that can be used. A target is {_CURE}.")
    if parts.username is not None or parts.password is not None:
        raise InvalidRequest(f"{what}: the address of {parts.hostname} holds a user name. Leave it out: nothing is sent by that.")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise InvalidRequest(f"{what}: {shown(text)} would be told in the clear. Use https; http goes to this machine alone.")
    return text


def command_words(target: str, what: str = "notify") -> list[str]:
    """The words of a command. No shell reads them. Raises `InvalidRequest`."""
    try:
        words = shlex.split(target.removeprefix(COMMAND))
    except ValueError as error:
        raise InvalidRequest(f"{what}: the command cannot be split into words ({str(error).lower()}). Close the quotes.") from error
    if any("\0" in word for word in words):
        raise InvalidRequest(f"{what}: the command holds a NUL character: remove it.")
    return words


def address(text: str) -> SplitResult | None:
    """An address in its parts; None if it is none."""
    try:
        parts = urlsplit(text)
        is_whole = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return None
    # What `urlsplit` leaves out (tabs, newlines) or lets through would be another request than the one that was looked at.
    return parts if is_whole and _PRINTABLE.fullmatch(text) and "\\" not in text else None


def is_loopback(host: str) -> bool:
    """Whether a name or an address in text means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def shown(target: str) -> str:
    """A target for people and records: of an address scheme and host, of a command its program. The rest may be secret."""
    if target.startswith(COMMAND):
        try:
            return f"command {command_words(target)[0].rsplit('/', 1)[-1]}"
        except (InvalidRequest, IndexError):
            return "command"
    parts = address(target) if "://" in target else None
    if parts is not None:
        return f"{parts.scheme}://{parts.netloc.rsplit('@', 1)[-1]}"
    return target if target == BROWSER or target.startswith(VARIABLE) else "(a target)"


def message(
    event: NotifyOn,
    *,
    at: datetime,
    seconds: float,
    outcome: str = "",
    run_id: str = "",
    list_id: str = "",
    name: str = "",
    cost: float | None = None,
    ask: str = "",
    rehearsed: bool = False,
) -> dict[str, Any]:
    """What is sent: type, timestamp and data, as Standard Webhooks has it (github.com/standard-webhooks, section "Payload structure").

    Parameters
    ----------
    outcome : str
        A word of `OutcomeKind`, or of `ListStatus`.
    seconds, cost : float
        So far; US dollars.
    ask : str
        ``permission`` or ``question``.
    """
    data = {
        "event": event.value,
        "run_id": run_id or None,
        "list_id": list_id or None,
        "name": name or None,
        "outcome": outcome or None,
        "ask": ask or None,
        "seconds": round(seconds, 3),
        "cost": None if cost is None else round(cost, 6),
        "rehearsed": rehearsed,
    }
    return {"type": f"{'run' if run_id else 'list'}.{event.value}", "timestamp": at.isoformat().replace("+00:00", "Z"), "data": data}
