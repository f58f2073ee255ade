"""The reference page is what the code says."""

from __future__ import annotations

import importlib.util

import cc_executor
from support.environments import CHECKOUT

SCRIPT = CHECKOUT / "docs" / "make_reference.py"


def made(name: str = "page") -> str:
    spec = importlib.util.spec_from_file_location("make_reference", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)()


def test_the_reference_is_made_from_the_code_as_it_stands() -> None:
    written = (CHECKOUT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert written == made(), "docs/reference.md is old: `make reference` writes it anew"


def test_the_schema_of_task_lists_is_made_from_the_code_as_it_stands() -> None:
    written = (CHECKOUT / "docs" / "task-list.schema.json").read_text(encoding="utf-8")
    assert written == made("schema"), "docs/task-list.schema.json is old: `make reference` writes it anew"


def test_the_reference_has_every_public_name_and_no_other() -> None:
    text = (CHECKOUT / "docs" / "reference.md").read_text(encoding="utf-8")
    section = text.partition("## Python\n")[2].partition("\n## ")[0]
    assert [line.removeprefix("### ") for line in section.splitlines() if line.startswith("### ")] == cc_executor.__all__
