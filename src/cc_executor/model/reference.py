"""`{{ needs.ID.field }}` in a task's prompt: found, and filled with what earlier tasks have made. Pure text and values."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Mapping
from typing import Any, Final, cast

import msgspec

FIELDS: Final = ("result", "text", "data", "files", "status", "cost")
DEEP_FIELDS: Final = ("result", "data")
VALUE_LIMIT: Final = 1_000_000  # characters of one value; a prompt may hold ten such
NAMED: Final = 10  # parts that are named in a sentence
DIGITS: Final = 18  # of a place in a list: `int` takes no more than some thousand

_REFERENCE: Final = re.compile(r"\{\{\s*needs\.([A-Za-z0-9][A-Za-z0-9_-]*)(?:\.([A-Za-z_]\w*)((?:\.[\w-]+)*))?\s*\}\}")
_ALIKE: Final = re.compile(r"""(?<!\$)\{\{\s*needs[\s.\["']*([A-Za-z0-9][A-Za-z0-9_-]*)(?![A-Za-z0-9_-])[^{}\n]*\}\}""")
_PART: Final = re.compile(r"""\[\s*(["']?)([\w-]+)\1\s*\]""")


class Reference(msgspec.Struct, frozen=True):
    """One reference. ``{{ needs.ID }}`` is ``{{ needs.ID.result }}``."""

    task: str
    field: str = "result"
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "{{ " + ".".join(("needs", self.task, self.field, *self.path)) + " }}"


class Made(msgspec.Struct, frozen=True):
    """What an ended task offers to later ones."""

    text: str = ""
    data: Any = None
    files: tuple[str, ...] = ()
    status: str = ""
    cost: float | None = None

    @property
    def result(self) -> Any:
        """The structured data if there is any, else the text."""
        return self.data if self.data is not None else self.text


class Absent(LookupError):
    """What a reference asks for is not in what the task has made."""


def found(text: str) -> tuple[Reference, ...]:
    """The references in `text`, in order, each once."""
    return tuple(dict.fromkeys(_of(match) for match in _REFERENCE.finditer(text) if not _is_foreign(match)))


def mistaken(text: str, ids: Container[str]) -> tuple[str, ...]:
    """What looks like a reference to one of `ids` and is none, in words with the cure: such a thing would reach the agent as it stands."""
    return tuple(
        f"holds {match[0]}, which is no reference: write {_cure(match[0])}."
        for match in _ALIKE.finditer(text)
        if match[1] in ids and not _REFERENCE.fullmatch(match[0])
    )


def _cure(written: str) -> str:
    dotted = _PART.sub(r".\2", written).replace("needs .", "needs.")
    return dotted if _REFERENCE.fullmatch(dotted) else "{{ needs.ID.FIELD }}, and the parts of data with dots: {{ needs.ID.data.steps.0 }}"


def _is_foreign(match: re.Match[str]) -> bool:
    """Whether it is a workflow's of GitHub Actions, ``${{ needs.JOB.outputs.NAME }}``, which a prompt may well speak of."""
    return match[2] == "outputs" and match.string[: match.start()].endswith("$")


def _of(match: re.Match[str]) -> Reference:
    task, name, rest = match.groups()
    return Reference(task, name or "result", tuple((rest or "").split(".")[1:]))


def filled(text: str, made: Mapping[str, Made]) -> str:
    """`text` with its references replaced; everything else stays byte for byte, and what is filled in is not looked at again.

    Raises
    ------
    Absent
        A task is not in `made`, or its data has no such part; the message says which.
    """
    return _REFERENCE.sub(lambda match: match[0] if _is_foreign(match) else _written(_value(_of(match), made)), text)


def _value(item: Reference, made: Mapping[str, Made]) -> Any:
    if item.task not in made:
        raise Absent(f"{item} cannot be filled in: task {item.task!r} has made nothing.")
    value: Any = getattr(made[item.task], item.field)
    for step in item.path:
        value = _part(value, step, item)
    return value


def _part(value: Any, step: str, item: Reference) -> Any:
    if isinstance(value, dict) and step in value:
        return cast("dict[str, Any]", value)[step]
    is_place = step.isdecimal() and len(step) <= DIGITS
    if isinstance(value, list) and is_place and int(step) < len(cast("list[Any]", value)):
        return cast("list[Any]", value)[int(step)]
    raise Absent(f"{item} cannot be filled in: {_lack(value, step, item)}")


def _lack(value: Any, step: str, item: Reference) -> str:
    """What there is instead of the part that a reference asks for."""
    whole = "{{ needs." + item.task + ".text }}"
    match value:
        case None:
            return f"task {item.task!r} has made no data. {whole} is what it wrote; data comes from an agent with a `schema`, or from a callable."
        case dict():
            names = [repr(name) for name in cast("dict[str, Any]", value)]
            there = f"it has {', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''}" if names else "it is empty"
            return f"what {item.task!r} has made has no {step!r} there; {there}."
        case list():
            return f"what {item.task!r} has made has no {step!r} there; it is a list of {len(cast('list[Any]', value))}, counted from 0."
        case _:
            return (
                f"what {item.task!r} has made has no {step!r} there; it is {json.dumps(value, ensure_ascii=False):.60}, which has no parts."
            )


def _written(value: Any) -> str:
    if isinstance(value, str):
        text = value
    elif isinstance(value, tuple):  # files
        text = "\n".join(cast("tuple[str, ...]", value))
    else:
        text = json.dumps(value, ensure_ascii=False, indent=1)
    if len(text) <= VALUE_LIMIT:
        return text
    return f"{text[:VALUE_LIMIT]}\n[cut here: {len(text) - VALUE_LIMIT:,} of {len(text):,} characters are left out]"


def files_of(made: Mapping[str, Made]) -> dict[str, bytes]:
    """What earlier tasks have made, by the name of the file in which a later one finds it: ``ID.txt``, and ``ID.json`` where there is data."""
    found: dict[str, bytes] = {}
    for name, value in made.items():
        found[f"{name}.txt"] = value.text.encode("utf-8", "replace")
        if value.data is not None:
            found[f"{name}.json"] = json.dumps(value.data, ensure_ascii=False, indent=1).encode("utf-8", "replace")
    return found
