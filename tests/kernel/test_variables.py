"""`{{name}}` in a cell: what is replaced, by what, and what is said of names that are not there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cc_executor.errors import InvalidRequest
from cc_executor.kernel.variables import filled

NAMES = {
    "word": "hello",
    "nothing": None,
    "zero": 0,
    "_1": "one",
    "it": SimpleNamespace(name="x", at=SimpleNamespace(place=3)),
    "again": "{{word}}",
}


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("say {{word}}, {{ word }} and {{\tword\n}}", "say hello, hello and hello"),
        ("{{nothing}} {{zero}} {{_1}}", "None 0 one"),
        ("{{it.name}} {{it.at.place}}", "x 3"),
        ("{{again}}", "{{word}}"),
        ("{word} {{1}} {{}} {{a b}} {{it.}} {{word()}} {{it[0]}} {% word %}", "{word} {{1}} {{}} {{a b}} {{it.}} {{word()}} {{it[0]}} {% word %}"),
        ("{{{word}}}", "{hello}"),
    ],
)  # fmt: skip
def test_names_and_attributes_are_replaced_once_and_all_else_stays(text: str, made: str) -> None:
    assert filled(text, NAMES) == made


def test_all_names_that_are_not_there_are_said_at_once_and_each_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        filled("{{word}} {{nobody}} {{it.age}} {{it.at.x.y}} {{ nobody }} {{print}}", NAMES)
    said = str(caught.value)
    assert said.startswith("Not defined in this notebook: {{nobody}}, {{it.age}}, {{it.at.x.y}}, {{print}}. ")
