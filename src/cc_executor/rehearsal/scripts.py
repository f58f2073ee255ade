"""Scripts: what the scripted model says, turn by turn. Knows the format and the shipped names; knows no socket, no HTTP, no process.

A script is a TOML file. ``[[turn]]`` is one answer of the model; ``[[turn.block]]`` is a piece of it (text, thinking or a tool call);
``[turn.fault]`` is what goes wrong instead. Places that may hold ``{cwd}``, ``{python}`` (this interpreter), ``{session}``, ``{turn}`` (from 1),
``{run}`` (the newest id of a run that a tool has answered) and ``{n}`` (number of the repetition, from 1): texts and every string of a tool's input.
Other braces stay as they are.
"""

from __future__ import annotations

import math
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

import msgspec

from cc_executor.errors import InvalidRequest

SUFFIX: Final = ".toml"
FOLDER: Final = Path(__file__).with_name("scripts")  # not importlib.resources: it would double the time to load this module
FILE_LIMIT: Final = 4 * 2**20  # bytes of a script file; the longest shipped one is 3 kB
TEXT_LIMIT: Final = 32 * 2**20  # characters of one block once repeated; as much as the longest line that a reader of runs accepts
DELTA_LIMIT: Final = 1_000_000  # pieces of one block: a flood, and still some minutes of work only
WAIT_LIMIT: Final = 3600.0  # seconds; no delay or stall is longer

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_HEADER: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,80}")

StopReason = Literal["end_turn", "tool_use", "max_tokens", "stop_sequence", "refusal", "pause_turn", "model_context_window_exceeded"]
Count = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=DELTA_LIMIT)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=WAIT_LIMIT)]


class Block(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One content block. Exactly one of `text`, `thinking` and `tool` is given.

    Attributes
    ----------
    text, thinking : str or None
        What is written, `repeat` times over.
    tool : str or None
        Name of the tool that is called.
    input : dict
        The tool's input.
    repeat_input : dict of str to int
        Top-level strings of `input` that are written that many times over: big inputs from small scripts.
    input_from_schema : bool
        Make the input up from the tool's own schema in the request; this is how a structured result meets whatever schema the run asks for.
    repeat : int
        Repetitions of the text.
    piece : int
        Characters of one delta.
    lines : bool
        One delta per line instead.
    delay : float or None
        Seconds before each delta; None: the turn's.
    """

    text: str | None = None
    thinking: str | None = None
    tool: str | None = None
    input: dict[str, Any] = {}
    repeat_input: dict[str, Positive] = {}
    input_from_schema: bool = False
    repeat: Positive = 1
    piece: Positive = 24
    lines: bool = False
    delay: Seconds | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("text", "thinking", "tool") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of text, thinking and tool, and has {', '.join(given) or 'none'}")
        if self.tool is None and (self.input or self.repeat_input or self.input_from_schema):
            raise ValueError("input, repeat_input and input_from_schema belong to a tool")
        if self.tool == "":
            raise ValueError("tool must be a name")
        if self.tool is not None and self.repeat != 1:
            raise ValueError("repeat is for text and thinking; a tool's input grows by repeat_input")
        if self.input_from_schema and self.input:
            raise ValueError("give input or input_from_schema, not both")
        sizes = [len(self.text or self.thinking or "") * self.repeat]
        for name, times in self.repeat_input.items():
            value = self.input.get(name)
            if not isinstance(value, str):
                raise ValueError(f"repeat_input.{name} needs a string input.{name}")
            sizes.append(len(value) * times)
        if max(sizes) > TEXT_LIMIT:
            raise ValueError(f"would write {max(sizes):,} characters; the limit is {TEXT_LIMIT:,}")
        if self.lines and self.repeat * ((self.text or self.thinking or "").count("\n") + 1) > DELTA_LIMIT:
            raise ValueError(f"would write more than {DELTA_LIMIT:,} lines")


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong in a turn.

    Attributes
    ----------
    kind : str
        ``status`` (an HTTP error), ``reset`` (the connection is reset), ``eof`` (it just ends), ``error_event`` (an error inside the
        stream) or ``stall`` (nothing more comes for `seconds`, then the connection is reset).
    at : str
        ``headers``: before anything was sent; ``midway``: after `after` deltas. A ``status`` is always at the headers.
    times : int or None
        How many requests of this turn meet the fault before the turn is played well; None: all.
    status, error, message, retry_after
        For ``status`` and ``error_event``: the HTTP status, the API's error type, its message, and the header in seconds.
    pings : bool
        Whether a stall midway sends the API's keep-alive events.
    """

    kind: Literal["status", "reset", "eof", "error_event", "stall"]
    at: Literal["headers", "midway"] = "midway"
    after: Count = 3
    times: Positive | None = None
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None
    error: str = "api_error"
    message: str = "rehearsed error"
    retry_after: Count | None = None
    pings: bool = False
    seconds: Seconds = WAIT_LIMIT

    def __post_init__(self) -> None:
        if (self.kind == "status") != (self.status is not None):
            raise ValueError("status and kind = 'status' belong together")
        if self.kind == "error_event" and self.at == "headers":
            raise ValueError("an error_event is inside the stream: at = 'midway'")


class Usage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tokens that the answer reports. `output_tokens` None: a quarter of the characters written."""

    input_tokens: Count = 25
    output_tokens: Count | None = None
    cache_read_input_tokens: Count = 0
    cache_creation_input_tokens: Count = 0


class Turn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"blocks": "block"}):
    """One answer. `stop_reason` None: ``tool_use`` after a tool call, else ``end_turn``. `wait`: seconds before the headers."""

    blocks: tuple[Block, ...] = ()
    stop_reason: StopReason | None = None
    wait: Seconds = 0.0
    delay: Seconds = 0.0
    usage: Usage = Usage()
    headers: dict[str, str] = {}
    fault: Fault | None = None

    def __post_init__(self) -> None:
        if not self.blocks and (self.fault is None or self.fault.times is not None):
            raise ValueError("needs at least one block, or a fault for ever (without times)")
        for name, value in self.headers.items():
            if not _HEADER.fullmatch(name) or name in {"content-length", "transfer-encoding", "connection"}:
                raise ValueError(f"headers.{name} is not a header that a script may set (lower case, digits, hyphens)")
            if not value.isascii() or not value.isprintable():
                raise ValueError(f"headers.{name} must be printable ASCII")


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"turns": "turn"}):
    """A whole script.

    Attributes
    ----------
    name : str
        The shipped name, or the file's path.
    description : str
        One line.
    allow : tuple of str
        Tools that the run should allow, so that the script's calls are carried out.
    turns : tuple of Turn
    repeat : int
        How many times the last turn is played in all. After that the model says that the script has ended.
    """

    turns: Annotated[tuple[Turn, ...], msgspec.Meta(min_length=1, max_length=1000)]
    description: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = "a script"
    allow: tuple[str, ...] = ()
    repeat: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    name: str = ""

    def turn(self, index: int) -> Turn | None:
        """The turn that is played as answer number `index` (from 0); None after the end."""
        if index < len(self.turns):
            return self.turns[index]
        return self.turns[-1] if index < len(self.turns) - 1 + self.repeat else None


# Made here for its effect: the first use of a type by two threads at the same time crashes msgspec 0.22 (41 of 60 processes).
_ = msgspec.json.Decoder(Script)


def names() -> tuple[str, ...]:
    """The shipped scripts, sorted: the vocabulary of ``--rehearse NAME``."""
    return tuple(sorted(entry.stem for entry in FOLDER.iterdir() if entry.suffix == SUFFIX))


def whole(name_or_path: str | os.PathLike[str], *, folder: str | os.PathLike[str] = "") -> str:
    """The same script from everywhere: a shipped name as it is, a path seen from `folder` (the current one if not given) as an absolute one.

    A run works in another folder than the one where it was asked for.
    """
    wanted = os.fspath(name_or_path)
    return os.path.abspath(os.path.join(folder, os.path.expanduser(wanted))) if _is_path(wanted) else wanted


def load(name_or_path: str | os.PathLike[str]) -> Script:
    """A script by its shipped name, or from a file.

    Parameters
    ----------
    name_or_path : str or PathLike
        One of `names()`; or the path of a TOML file: it holds a ``/`` or ends in ``.toml``.

    Returns
    -------
    Script

    Raises
    ------
    InvalidRequest
        No such name (the message lists the names), an unreadable file, or content that is not a script (the message names the place).
    """
    wanted = os.fspath(name_or_path)
    if _is_path(wanted):
        return parse(_file(wanted), name=wanted)
    entry = FOLDER / f"{wanted}{SUFFIX}"
    if not _NAME.fullmatch(wanted) or not entry.is_file():
        known = ", ".join(names())
        raise InvalidRequest(f"There is no rehearsal {wanted!r}. Choose one of: {known}; or give the path of a {SUFFIX} file.")
    return parse(entry.read_text("utf-8"), name=wanted)


def parse(text: str, *, name: str) -> Script:
    """The script in `text`, called `name`. Raises `InvalidRequest` with the place (``turn[0].block[1].delay``) of what is wrong."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequest(f"rehearsal script {name}: not valid TOML: {error}") from error
    if "name" in tree:
        raise InvalidRequest(f"rehearsal script {name}: at name: a script is named by its file; remove it")
    place = _not_finite(tree, "")
    if place:
        raise InvalidRequest(f"rehearsal script {name}: at {place}: must be a finite number")
    try:
        return msgspec.convert({**tree, "name": name}, Script)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        place = where.rstrip("`").lstrip(".") or "the top"
        raise InvalidRequest(f"rehearsal script {name}: at {place}: {what}") from error


def _is_path(wanted: str) -> bool:
    return os.sep in wanted or wanted.endswith(SUFFIX)


def _file(path: str) -> str:
    try:
        with open(path, "rb", opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidRequest(f"rehearsal script {path} is no plain file")
            data = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise InvalidRequest(f"rehearsal script {path} cannot be read: {error.strerror or error}") from error
    if len(data) > FILE_LIMIT:
        raise InvalidRequest(f"rehearsal script {path} is larger than {FILE_LIMIT:,} bytes; use repeat for long texts")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"rehearsal script {path} is not UTF-8 (byte {error.start})") from error


def _at_once(path: str, flags: int) -> int:
    """Opening a pipe would wait for its writer, and with it a server that answers others, too."""
    return os.open(path, flags | os.O_NONBLOCK)


def _not_finite(value: object, place: str) -> str:
    """Where TOML's `nan` or `inf` stands in `value`: they pass every comparison with a bound, and are no JSON."""
    children: list[tuple[str, object]] = []
    if isinstance(value, float):
        return "" if math.isfinite(value) else place
    if isinstance(value, dict):
        children = [(f"{place}.{key}".lstrip("."), item) for key, item in cast("dict[str, object]", value).items()]
    elif isinstance(value, list):
        children = [(f"{place}[{index}]", item) for index, item in enumerate(cast("list[object]", value))]
    return next((found for where, item in children if (found := _not_finite(item, where))), "")
