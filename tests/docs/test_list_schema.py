"""The JSON Schema of task lists: what our pages and notebooks show fits it, what is wrong does not, and the code agrees."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import jsonschema
import nbformat
import pytest
import yaml

from cc_executor.errors import InvalidTaskList
from cc_executor.taskplan import plan
from support.environments import CHECKOUT
from support.pages import PAGES, blocks, name

SCHEMA: Final[dict[str, Any]] = json.loads((CHECKOUT / "docs" / "task-list.schema.json").read_bytes())
VALIDATOR: Final = jsonschema.Draft202012Validator(SCHEMA)
_YAML: Final = re.compile(r"(?m)^tasks:|\A\s*-\s+(?:\{|\w+\s*:)")


def cells() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        yield from ((block.place, block.text) for block in blocks(page) if block.raises is None)
    for path in sorted((CHECKOUT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        yield from (
            (f"{name(path)} cell {number}", cell.source) for number, cell in enumerate(notebook.cells, 1) if cell.cell_type == "code"
        )


LISTS: Final = [
    pytest.param(text.partition("\n")[2], id=place)
    for place, text in cells()
    if text.startswith("%%cc_tasks") and _YAML.search(text.partition("\n")[2])
]


def test_the_schema_is_one_and_there_are_lists_to_try() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert len(LISTS) >= 8


@pytest.mark.parametrize("text", LISTS)
def test_the_lists_of_pages_and_notebooks_fit(text: str) -> None:
    VALIDATOR.validate(yaml.safe_load(text))


FITTING: Final = {
    "tasks alone": "- {prompt: Read a.py}\n- Read b.py",
    "all that a list has": """
        $schema: docs/task-list.schema.json
        name: n
        cwd: sub
        parallel: 2
        max_cost: 1.5
        on_failure: skip
        lint: off
        lint_off: [vague]
        defaults: {model: sonnet, timeout: 60, tools: [Bash]}
        tasks:
          - {id: 1, prompt: Read a.py, expect: [a, b], verify: "true", max_turns: 3, trust_workspace: true, schema: {type: object}}
          - {id: b, title: B, run: "true", needs: [1], group: g, retry: 2, on_failure: continue, shell: zsh, env_names: HOME}
        """,
    "a number that is needed": "tasks: [{run: 'true'}, {run: 'true', needs: 1}]",
    "a look at the work of all agents": "{tasks: [{prompt: Greet.}], defaults: {validate: It is polite., on_unchecked: accept}}",
}
# What the schema can say; the rest (circles, needs that there are not) is the code's.
WRONG: Final = {
    "nothing to do": "tasks: [{id: a}]",
    "two kinds of work": "tasks: [{prompt: a, run: b}]",
    "a typing error": "tasks: [{prompt: Read a.py, timout: 3}]",
    "a policy that there is not": "{on_failure: stopp, tasks: [a]}",
    "a text for a number": "tasks: [{prompt: a, timeout: long}]",
    "no time": "tasks: [{prompt: a, timeout: 0}]",
    "an id with a space": "tasks: [{id: a b, prompt: x}]",
    "no tasks": "{name: a}",
    "an option that is none of a task's": "tasks: [{prompt: a, agent: shell}]",
    "a rule that there is not": "{lint_off: vage, tasks: [a]}",
}


@pytest.mark.parametrize("text", FITTING.values(), ids=FITTING)
def test_what_the_code_takes_fits(text: str, tmp_path: Path) -> None:
    VALIDATOR.validate(yaml.safe_load(text))
    assert plan(f"\n{text}", cwd=tmp_path).tasks.tasks


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_what_the_code_refuses_does_not_fit(text: str, tmp_path: Path) -> None:
    assert not VALIDATOR.is_valid(yaml.safe_load(text))
    with pytest.raises(InvalidTaskList):
        plan(f"\n{text}", cwd=tmp_path)
