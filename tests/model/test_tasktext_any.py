"""Whatever somebody writes as a task list, it is a list that is kept as it is or problems in words, and never anything else."""

from __future__ import annotations

import json
import re
import time
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cc_executor.api import option_names
from cc_executor.errors import InvalidTaskList
from cc_executor.model.hook import Moment
from cc_executor.model.reference import Absent, Made, filled
from cc_executor.model.tasklist import TaskList, problems
from cc_executor.model.tasktext import Written, from_markdown, from_yaml
from cc_executor.taskplan import Plan, plan

# --- texts ------------------------------------------------------------------------------------------------------------

YAML: Final = st.lists(
    st.sampled_from(
        [
            "tasks:", "- ", "  ", "\n", "id: ", "prompt: ", "run: ", "needs: ", "a", "b", "1", "010", "2024-01-01", "&a ", "*a", "<<: ", "{", "}", "[", "]",
            ", ", ": ", "|\n", "? ", "'", '"', "~", "#", "\t", "0x1", "1e3", ".nan", "=", "é", "\u2028", "\r", "yes", "%YAML 1.1\n", "---\n", "...\n", "!x ",
            "!!int ", "!!float ", "!!bool ", "!!timestamp ", "!!binary ", "!!set ", "!!omap ", "!!pairs ", "!!str ", "!!python/none ",
        ]
    )
    | st.text(max_size=3),
    max_size=20,
).map("".join)  # fmt: skip
MARKDOWN: Final = st.lists(
    st.sampled_from(
        [
            "Task 1: ", "Task 2", "Task 3 (x): ", "## ", "1. ", "2) ", "   ", "- ", "**", "__", "```", "~~~~", "\n", "\r\n", "\r", "\u2028", "\x0b", "a",
            "keep ", "{{ needs.1 }}", " ", "\t", "Task ٣: ", "Task 0: ", f"Task {'9' * 70}: ", "–",
        ]
    )
    | st.text(max_size=3),
    max_size=25,
).map("".join)  # fmt: skip


def told(made: Written) -> None:
    """Problems that are each a line, or else a list."""
    found = [*made.problems, *(problems(made.tasks, places=made.places) if made.tasks is not None else ())]
    assert all("\n" not in str(problem) for problem in found)
    if made.tasks is None:
        assert found
    elif not found:
        made.tasks.in_order()


@given(YAML | st.text(max_size=300))
@example("!!int ''")
@example("!!bool maybe")
@example("!!timestamp soon")
def test_any_yaml_is_a_list_or_problems(text: str) -> None:
    told(from_yaml(text, cwd="/w"))
    told(from_yaml(f"tasks:\n- prompt: x\n- {text}", cwd="/w"))


@given(MARKDOWN | st.text(max_size=300))
def test_any_markdown_is_a_list_or_problems(text: str) -> None:
    told(from_markdown(text, cwd="/w"))
    made = from_markdown(f"Task 1: x\n{text}", cwd="/w")
    told(made)
    if made.tasks is not None and not made.problems:
        prompts = "\n".join(task.text for task in made.tasks.tasks)
        assert prompts.count("keep") == text.count("keep"), "nothing that was written is lost, and nothing is there twice"


@pytest.mark.parametrize("gap", ["\n", " \n", "\r\n", " ", "\t", "# x\n", "{", "- "])
@pytest.mark.parametrize(
    ("before", "after"), [("", "Task 1: x"), ("Task 1: x", "y"), ("1. x", "y\n"), ("Task 1", ": x"), ("- ", "x: y"), ("tasks", ": []")]
)
def test_a_long_gap_in_a_text_takes_no_time(before: str, gap: str, after: str) -> None:
    begun = time.process_time()
    planned(f"{before}{gap * 20_000}{after}\n")
    assert time.process_time() - begun < 5, "some hundredths of a second, where nothing is tried again and again"


# --- values -----------------------------------------------------------------------------------------------------------

WORDS: Final = st.sampled_from(["a", "b", "1", "stop", "wait", "off", "{{ needs.a }}", "{{ needs.1.data.0 }}", "\ud800", "é\u2028", "", "x" * 300]) | st.text(
    max_size=6
)  # fmt: skip
KEYS: Final = st.sampled_from(
    ["id", "title", "needs", "prompt", "run", "call", "lint", "hooks", "type", "properties", "max_cost"]
) | st.text(max_size=3)
VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.integers() | st.floats() | WORDS | st.dates() | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
FIELDS: Final = (
    "id",
    "title",
    "needs",
    "group",
    "on_failure",
    "retry",
    "on_limit",
    "on_output_limit",
    "reask",
    "validate",
    "lint",
    "lint_off",
)
TASKS: Final = VALUES | st.builds(
    lambda prompt, more: {"prompt": prompt} | more,
    WORDS,
    st.dictionaries(st.sampled_from(FIELDS), VALUES | WORDS, max_size=2)
    | st.dictionaries(st.sampled_from(sorted(option_names())), VALUES | st.floats(0, 9), max_size=2),
)
HOOKS: Final = st.dictionaries(
    st.sampled_from([*Moment, "when_it_rains"]),
    st.fixed_dictionaries(
        {"run": st.sampled_from(["true", "", "\0"])},
        optional=dict.fromkeys(("when", "timeout", "on_failure", "events", "env", "min_seconds", "name", "\n"), VALUES),
    ),
    max_size=2,
)
# What is a list mostly, so that the way to what is kept is gone as well.
RIGHT: Final = st.fixed_dictionaries(
    {"prompt": st.sampled_from(["look around", "say {{ needs.1.text }}", "a\ud800"])},
    optional={
        "id": st.sampled_from(["a", "b", "x-1"]), "title": WORDS, "group": WORDS, "retry": st.integers(0, 3), "model": st.sampled_from(["opus", "é"]),
        "timeout": st.floats(0.1, 99) | st.integers(1, 10**6), "max_cost": st.floats(0.1, 9), "validate": st.sampled_from(["it works", {"prompt": "v", "max_cost": 1}]),
        "schema": st.fixed_dictionaries({"type": st.just("object")}, optional={"maximum": st.integers() | st.floats(), "title": WORDS}),
    },
)  # fmt: skip
LISTS: Final = (
    st.lists(RIGHT, min_size=1, max_size=3)
    | st.lists(TASKS, min_size=1, max_size=3)
    | st.fixed_dictionaries(
        {"tasks": st.lists(TASKS, max_size=3) | VALUES},
        optional=dict.fromkeys(("name", "cwd", "parallel", "max_cost", "on_failure", "on_limit", "defaults", "lint_off"), VALUES)
        | {"hooks": HOOKS | VALUES},
    )
)


def planned(tasks: Any) -> Plan | None:
    """The list, or None where it has problems."""
    found: tuple[str, ...] = ()
    try:
        return plan(tasks, cwd="/")
    except InvalidTaskList as error:
        found = error.problems
    assert found
    assert all("\n" not in problem for problem in found), found
    return None


@given(LISTS)
@example({"tasks": ["x"], "hooks": {"after_list": {"run": "true", "on_failure": ["stop"]}}})
@example({"tasks": ["x"], "hooks": [{"when": [], "run": "true"}]})
@example({"tasks": ["x"], "hooks": {"after_list": {"run": "true", "timeout": 10**400}}})
@example([{"prompt": "x", "journal_limit": 10**400}])
def test_any_values_are_a_list_that_is_kept_as_it_is_or_problems(tasks: Any) -> None:
    made = planned(tasks)
    if made is None:
        return
    made.hints()
    kept = TaskList.model_validate(json.loads(json.dumps(made.tasks.model_dump(mode="json"))))
    assert kept.digest() == made.tasks.digest()
    again = planned(kept)
    assert again is not None, "what was a list is one when it is taken up again"
    assert again.tasks.digest() == made.tasks.digest()


# --- references -------------------------------------------------------------------------------------------------------

JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@given(
    JSON,
    st.lists(KEYS.filter(re.compile(r"[\w-]+\Z").match) | st.sampled_from(["0", "1", "-1", "٢", "²"]), max_size=3),
)
def test_any_reference_is_filled_or_absent(data: Any, path: list[str]) -> None:
    text = "".join(["{{ needs.a.data", *(f".{step}" for step in path), " }}"])
    value, absent = data, ""
    try:
        written = filled(text, {"a": Made("text", data)})
    except Absent as error:
        absent = str(error)
    if absent:
        assert "\n" not in absent
        return
    for step in path:
        value = value[int(step)] if isinstance(value, list) else value[step]
    assert written == value if isinstance(value, str) else json.loads(written) == value


@pytest.mark.parametrize("value", [b"\x80", {1, 2}])
def test_what_is_no_json_is_refused_where_it_stands(value: object) -> None:
    with pytest.raises(InvalidTaskList, match=r"tasks\[0\]"):
        plan([{"prompt": "x", "model": value}], cwd="/")
