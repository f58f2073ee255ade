"""What a shim is asked to do, read strictly. Knows the spec's fields; starts nothing, opens nothing."""

from __future__ import annotations

import json

from cc_executor.shim.records import FORMAT_VERSION, SPEC_FIELDS, SPEC_HOLD, SPEC_JOURNAL_LIMIT, SPEC_LINGER, SPEC_QUIET, SPEC_TALK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, TypeGuard

STDIN_MODES: Final = ("prompt", "none", "open", "talk")
LEASE_ENDS: Final = ("cancel", "continue")


class SpecRefused(Exception):
    """The spec cannot be run; the message says which field and why. Nothing was started."""


class Linger:
    """How long an agent may stay after its last word, and how that is told."""

    __slots__ = ("anew", "done", "seconds")

    def __init__(self, value: dict[str, object]) -> None:
        seconds = _seconds("linger.seconds", value.get("seconds"))
        if seconds is None:
            raise SpecRefused("linger.seconds must be a number of seconds above 0")
        self.seconds = seconds
        self.done = _marks("linger.done", value.get("done"))
        self.anew = _marks("linger.anew", value.get("anew"))
        if not self.done:
            raise SpecRefused("linger.done must name a mark")


class Talk:
    """How the agent's questions are told."""

    __slots__ = ("asked", "withdrawn")

    def __init__(self, value: dict[str, object]) -> None:
        self.asked = _marks("talk.asked", value.get("asked"))
        self.withdrawn = _marks("talk.withdrawn", value.get("withdrawn"))
        if not self.asked:
            raise SpecRefused("talk.asked must name a mark")


class Spec:
    """The spec, typed. Texts that go to the system are bytes already: the locale has no say in them."""

    def __init__(self, fields: dict[str, object]) -> None:
        missing = [name for name in SPEC_FIELDS if name not in fields]
        if missing:
            raise SpecRefused(f"the spec lacks {', '.join(missing)}")
        if fields["version"] != FORMAT_VERSION:
            raise SpecRefused(f"the spec has version {fields['version']!r}; this shim knows {FORMAT_VERSION}")
        self.run_dir = _encoded("run_dir", fields["run_dir"], absolute=True)
        self.run_id = _text("run_id", fields["run_id"])
        self.argv = tuple(_encoded("argv", item) for item in _texts("argv", fields["argv"]))
        if not self.argv or not self.argv[0].startswith(b"/"):
            raise SpecRefused("argv must begin with an absolute path")
        env = fields["env"]
        if not is_object(env):
            raise SpecRefused("env must be an object")
        self.env = {_encoded("env", name): _encoded(f"env {name}", value) for name, value in env.items()}
        if any(not name or b"=" in name for name in self.env):
            raise SpecRefused("env has a name that is empty or contains '='")
        self.cwd = _encoded("cwd", fields["cwd"], absolute=True)
        self.stdin = _choice("stdin", fields["stdin"], STDIN_MODES)
        self.wall = _seconds("wall", fields["wall"])
        self.stall = _seconds("stall", fields["stall"])
        lease = fields["lease_pid"]
        if lease is not None and (type(lease) is not int or lease <= 0):
            raise SpecRefused("lease_pid must be a process id or null")
        self.lease_pid = lease if isinstance(lease, int) else None
        self.on_lease_end = _choice("on_lease_end", fields["on_lease_end"], LEASE_ENDS)
        self.secrets = _texts("secrets", fields["secrets"])
        keep = fields["keep_background"]
        if not isinstance(keep, bool):
            raise SpecRefused("keep_background must be true or false")
        self.keep_background = keep
        linger = fields.get(SPEC_LINGER)
        if linger is not None and not is_object(linger):
            raise SpecRefused("linger must be an object or null")
        self.linger = None if linger is None else Linger(linger)
        quiet = fields.get(SPEC_QUIET)
        self.quiet = () if quiet is None else _marks("quiet", quiet)
        limit = fields.get(SPEC_JOURNAL_LIMIT)
        if limit is not None and (type(limit) is not int or limit <= 0):
            raise SpecRefused("journal_limit must be a number of bytes above 0, or null")
        self.journal_limit = limit if isinstance(limit, int) else None
        talk = fields.get(SPEC_TALK)
        if talk is not None and not is_object(talk):
            raise SpecRefused("talk must be an object or null")
        self.talk = None if talk is None else Talk(talk)
        if (self.stdin == "talk") != (self.talk is not None):
            raise SpecRefused("stdin `talk` and the field talk belong together")
        if self.talk is not None and self.linger is None:
            raise SpecRefused("talk needs linger: without a last word, its stdin would never be closed")
        self.hold = _seconds("hold", fields.get(SPEC_HOLD))
        if self.hold is not None and self.talk is None:
            raise SpecRefused("hold needs talk: an agent waits for its prompt where its stdin stays open")


def read(data: bytes) -> Spec:
    """The spec in `data`.

    Raises
    ------
    SpecRefused
        It is not JSON, or a field is missing or wrong.
    """
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError) as problem:
        raise SpecRefused(f"the spec is not JSON: {problem}") from None
    if not is_object(value):
        raise SpecRefused("the spec is not a JSON object")
    return Spec(value)


def is_object(value: object) -> TypeGuard[dict[str, object]]:
    """Whether decoded JSON is an object; its keys are texts then."""
    return isinstance(value, dict)


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise SpecRefused(f"{name} must be text")
    return value


def _texts(name: str, value: object) -> tuple[str, ...]:
    if not _is_list(value):
        raise SpecRefused(f"{name} must be a list")
    return tuple(_text(name, item) for item in value)


def _marks(name: str, value: object) -> tuple[bytes, ...]:
    marks = tuple(_encoded(name, item) for item in _texts(name, value))
    if any(not mark or b"\n" in mark for mark in marks):
        raise SpecRefused(f"{name} must be beginnings of lines")
    return marks


def _encoded(name: str, value: object, *, absolute: bool = False) -> bytes:
    text = _text(name, value)
    if "\0" in text:
        raise SpecRefused(f"{name} contains a NUL")
    if absolute and not text.startswith("/"):
        raise SpecRefused(f"{name} must be an absolute path")
    try:
        return text.encode("utf-8", "surrogateescape")  # how Python itself carries names that are not UTF-8
    except UnicodeEncodeError:
        raise SpecRefused(f"{name} contains a character that no system call can take") from None


def _choice(name: str, value: object, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise SpecRefused(f"{name} must be one of {', '.join(allowed)}")
    return value


def _seconds(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise SpecRefused(f"{name} must be a number of seconds above 0, or null")
    return float(value)
