"""A question of an agent as a person is to see it: the tool, the command or the difference that it would make, and what the answers would mean.

Reads the file that a tool would overwrite, and nothing else. What comes out is text, bounded, without secrets, and with nothing in it that is not seen.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, cast

import msgspec

from cc_executor.agents.claude.control import EDITS, scope_words
from cc_executor.model import toolcall
from cc_executor.model.ask import Ask, Body, ShownAsk, what_of
from cc_executor.model.event import Option, PermissionAsked, Question, QuestionAsked
from cc_executor.model.item import excerpt
from cc_executor.policy.redact import Redactor
from cc_executor.runtime.plan import resolved, roots_of

BODY_LINES: Final = 200
BODY_CHARS: Final = 8 * 1024
ROW_CHARS: Final = 600  # of one line, where not all is shown: beginning and end of a text have room for some of these
LABEL_CHARS: Final = 400
FILE_LIMIT: Final = 64 * 1024  # characters that are compared; difflib takes some 50 ms for as many that have nothing in common
CONTEXT: Final = 3  # lines around a change, as diff -u
NOT_COMPARED: Final = "(What is there already is not compared with this: it is too large, or no text that can be read.)"

# What is not seen and changes how a line reads: control characters (a carriage return hides what stands before it), directions (CVE-2021-42574), joiners,
# spaces without width, letters without a shape; beside the control characters all that Unicode 16 has as Default_Ignorable_Code_Point, the ends of lines and
# paragraphs, and the marks of notes between lines. Here they are shown as what they are: somebody is to decide over the very text.
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# The one field of a call that is shown as its body; what else is set stands beside its name.
_TELLING: Final[Mapping[str, str]] = MappingProxyType({"Bash": "command", "ExitPlanMode": "plan"})


def shown(ask: Ask, *, cwd: str, mask: Callable[[str], str]) -> ShownAsk:
    """The question in words.

    Parameters
    ----------
    ask : Ask
    cwd : str
        Where the agent works.
    mask : callable
        Takes secrets out of a text.
    """

    def said(text: str) -> str:
        return _seen(mask(text))

    if isinstance(ask, QuestionAsked):
        questions = tuple(_question(question, said) for question in ask.questions)
        return ShownAsk(id=ask.ask_id, kind="question", title=_line(said(ask.source)) or "The agent", questions=questions)
    call = toolcall.fields(ask.input) or {}
    there = toolcall.fields(ask.input, roots_of(cwd)) or {}
    kind, text = _body(ask, call, there, cwd)
    about = _beside(call, _TELLING[ask.name]) if ask.name in _TELLING else there.get("file_path") or there.get("notebook_path")
    return ShownAsk(
        id=ask.ask_id,
        kind="permission",
        title=_line(said(ask.name)) or "a tool",
        about=_line(said(about)) if isinstance(about, str) else "",
        body=_ends(said(text)),
        body_kind=kind,
        scope=_line(said(scope_words(ask))),
    )


def line_of(ask: Ask, *, cwd: str) -> str:
    """The question in one line, in which nothing hides: what cannot be seen is written out."""
    return _seen(Redactor(()).text(what_of(ask, roots_of(cwd))))


def _line(text: str) -> str:
    return _row_ends(" ".join(text.split()), LABEL_CHARS)


def _seen(text: str) -> str:
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}" if found[0] <= "\uffff" else f"\\U{ord(found[0]):08x}", text)


def _ends(text: str, chars: int = BODY_CHARS) -> str:
    """`text`, if it has at most so many characters and `BODY_LINES` lines, else its beginning and its end, also where it is one long line."""
    if len(text) > chars:
        text = "\n".join(map(_row_ends, text.rstrip("\n").split("\n")))
    return excerpt(text, lines=BODY_LINES, chars=chars).text


def _row_ends(row: str, chars: int = ROW_CHARS) -> str:
    if len(row) <= chars:
        return row
    half = chars // 2
    return f"{row[:half]} … {len(row) - 2 * half:,} more characters … {row[-half:]}"


def _question(question: Question, said: Callable[[str], str]) -> Question:
    options = tuple(Option(label=_line(said(option.label)), description=_line(said(option.description))) for option in question.options)
    text = _ends(said(question.text), BODY_CHARS // 4)
    header = _line(said(question.header))
    return Question(text=text, header=header, options=options[:20], multiple=question.multiple, optional=question.optional)


def _body(ask: PermissionAsked, call: dict[str, Any], there: dict[str, Any], cwd: str) -> tuple[Body, str]:
    if ask.name in EDITS and (difference := _difference(call, cwd)) is not None:
        return Body.DIFF, difference
    telling = call.get(_TELLING.get(ask.name, ""))
    if isinstance(telling, str):
        return (Body.COMMAND if ask.name == "Bash" else Body.TEXT), telling
    return Body.TEXT, toolcall.readable(there) if call else ask.input


def _beside(call: dict[str, Any], telling: str) -> str:
    """What a call has besides the field that tells most: first what changes how it is done (no sandbox, in the background), then what it says of itself."""
    more = {name: value for name, value in call.items() if name not in {telling, "description"} and value not in (None, False, "")}
    rows = [f"{name}: {value if isinstance(value, str) else msgspec.json.encode(value).decode()}" for name, value in more.items()]
    rows.sort(key=len)  # of what is long the middle is left out, and a switch is short
    description = call.get("description")
    return " · ".join([*rows, *([description] if isinstance(description, str) and description else [])])


def _difference(call: dict[str, Any], cwd: str) -> str | None:
    path = call.get("file_path")
    content = call.get("content")
    if isinstance(path, str) and isinstance(content, str):
        there = _file(path, cwd)
        return _unified(there, content) if there is not None else "\n".join((NOT_COMPARED, *_marked("+", content)))
    edits = call.get("edits") if isinstance(call.get("edits"), list) else [call]
    parts: list[str] = []
    for edit in cast("list[object]", edits):
        known = cast("dict[str, object]", edit) if isinstance(edit, dict) else {}
        old, new = known.get("old_string"), known.get("new_string")
        if not isinstance(old, str) or not isinstance(new, str):
            return None
        parts.append(_unified(old, new) + ("\n(everywhere in the file)" if known.get("replace_all") is True else ""))
    return "\n".join(parts) or None


def _unified(old: str, new: str) -> str:
    """The lines that differ, as diff -u marks them; all of them, where it would take too long to find those."""
    if len(old) + len(new) > FILE_LIMIT:
        return "\n".join((*_marked("-", old), *_marked("+", new)))
    import difflib  # here: few agents ask

    rows = list(difflib.unified_diff(_rows(old), _rows(new), lineterm="", n=CONTEXT))
    if not rows:
        return "(only the end of the last line changes)" if old != new else "(nothing changes)"
    return "\n".join(row for row in rows[2:] if not row.startswith("@@") or len(old) > 0)


def _marked(mark: str, text: str) -> list[str]:
    return [f"{mark}{row}" for row in _rows(text)]


def _rows(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n") if text else []


def _file(path: str, cwd: str) -> str | None:
    """The text that is there now, empty where nothing is; None when it cannot be compared. A pipe or a device is not opened."""
    try:
        descriptor = os.open(resolved(path, cwd=cwd), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return ""
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > FILE_LIMIT:
            return None
        try:
            return file.read(FILE_LIMIT).decode("utf-8")
        except (OSError, UnicodeDecodeError):
            return None
