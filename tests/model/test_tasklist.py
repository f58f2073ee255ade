"""Task lists as data: order, needs, references, and everything that can be wrong with one, said at once and with its place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_executor.model import reference
from cc_executor.model.reference import Absent, Made, filled
from cc_executor.model.tasklist import OnFailure, TaskKind, problems
from cc_executor.model.tasktext import Written, from_items, from_markdown, from_yaml
from policy.listplay import listed


def words(made: Written) -> list[str]:
    return [str(problem) for problem in (*made.problems, *(problems(made.tasks, places=made.places) if made.tasks else ()))]


def agent(task_id: str, *needs: str) -> dict[str, object]:
    return {"id": task_id, "prompt": f"do {task_id}", "needs": needs}


def test_tasks_come_in_the_order_of_the_list_as_far_as_needs_allow() -> None:
    tasks = listed(agent("a", "c"), agent("b"), agent("c"), agent("d", "a"))
    assert [task.id for task in tasks.in_order()] == ["b", "c", "a", "d"]


@given(st.lists(st.sets(st.integers(0, 11)), max_size=12))
def test_any_list_without_a_circle_has_an_order_in_which_needs_come_first(needs: list[set[int]]) -> None:
    tasks = listed(*(agent(f"t{n}", *(f"t{need}" for need in sorted(given) if need < n)) for n, given in enumerate(needs)))
    order = [task.id for task in tasks.in_order()]
    assert sorted(order) == sorted(task.id for task in tasks.tasks)
    for task in tasks.tasks:
        assert all(order.index(need) < order.index(task.id) for need in task.all_needs)
        assert set(tasks.dependants(task.id)) == {
            other.id
            for other in tasks.tasks
            if task.id in other.all_needs
            or any(task.id in tasks.task(need).all_needs or need in tasks.dependants(task.id) for need in other.all_needs)
        }


def test_what_a_prompt_refers_to_is_needed() -> None:
    tasks = listed(agent("a"), {"id": "b", "prompt": "look at {{ needs.a.files }} and {{needs.a}}"})
    assert tasks.task("b").all_needs == ("a",)


def test_what_a_prompt_says_of_other_tools_stays_text() -> None:
    text = "mend ${{ needs.a.outputs.version }} and ${{ needs.a.outputs['x y'] }}, {{ needs.other[0] }} and {{ a.b[0] }}"
    tasks = listed(agent("a"), {"id": "b", "prompt": text})
    assert not problems(tasks)
    assert tasks.task("b").all_needs == ()
    assert filled(text, {}) == text
    assert filled("it cost ${{ needs.a.cost }}", {"a": Made(cost=0.5)}) == "it cost $0.5"


def test_equal_lists_have_equal_digests_and_others_do_not() -> None:
    assert listed(agent("a")).digest() == listed(agent("a")).digest()
    assert listed(agent("a")).digest() != listed(agent("a"), parallel=2).digest()


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([], ["tasks: is empty"]),
        ([agent("a", "b"), agent("b", "a")], ["circle: "]),
        ([agent("a", "a")], ["circle: a ← a"]),
        ([agent("a", "nobody"), agent("b", "c"), agent("c", "b")], ["needs 'nobody'", "circle: "]),
        ([agent("a"), agent("a")], ["tasks[0] 'a': the id 'a' stands 2 times", "tasks[1] 'a'"]),
        ([agent("a", "nobody"), agent("b", "none")], ["needs 'nobody'", "needs 'none'"]),
        ([{"id": "a", "prompt": "{{ needs.b.text }}"}], ["refers to {{ needs.b.text }}, and there is no task 'b'"]),
        ([agent("a"), {"id": "b", "prompt": "{{ needs.a.colour }}"}], ["a task has result, text, data, files, status, cost"]),
        ([agent("a"), {"id": "b", "prompt": "{{ needs.a.text.x }}"}], ["only result and data have parts"]),
        (
            [agent("a"), {"id": "b", "prompt": "{{ needs.a.data[0]['x'] }} and {{needs['a'].text}}, {{ needs.a.text | upper }}"}],
            [
                "holds {{ needs.a.data[0]['x'] }}, which is no reference: write {{ needs.a.data.0.x }}.",
                "write {{needs.a.text}}.",
                "holds {{ needs.a.text | upper }}, which is no reference: write {{ needs.ID.FIELD }}, and",
            ],
        ),
        ([agent("a"), {"id": "b", "run": "echo {{ needs.a.text }}"}], ["never becomes part of a command", "$CC_NEEDS"]),
        ([{"id": "a b", "prompt": "x"}], ["must be letters, digits, _ and -"]),
        ([{"id": "a\n", "prompt": "x"}], ["must be letters, digits, _ and -"]),
        ([{"id": "a", "prompt": " "}], ["has nothing to do"]),
        ([{"id": "a"}], ["has nothing to do: give it one of prompt"]),
        ([{"id": "a", "prompt": "x", "run": "y"}], ["has prompt and run: give it one"]),
        ([{"id": "a", "prompt": "x", "retry": -1}], ["retry must be greater than or equal to 0 (given: -1)"]),
        ([{"id": "a", "prompt": "x", "on_failure": "panic"}], ["on_failure must be 'stop', 'skip' or 'continue' (given: 'panic')"]),
        ([{"id": "a", "prompt": 5}], ["prompt must be a valid string (given: 5)"]),
        ([{"id": "a", "call": "f", "timeout": 5}], ["takes no options of runs (timeout)"]),
        ([{"id": "a", "prompt": "x", "agent": "shell"}], ["option 'agent', which is none of a task's: `run: COMMAND` makes it a step of the shell"]),
        ([7, agent("a", "b")], ["tasks[0] '1': must be a prompt, a callable or a mapping, not int", "needs 'b'"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_all_at_once_with_its_place(items: list[object], said: list[str]) -> None:
    found = words(from_items(items, cwd="/w"))
    for part in said:
        assert any(part in problem for problem in found), found


def test_a_wrong_field_of_the_list_does_not_hide_what_is_wrong_with_its_tasks() -> None:
    found = words(from_items([agent("a", "b")], cwd="/w", parallel=0, colour="red"))
    assert len(found) == 3
    assert "parallel: must be greater than or equal to 1 (given: 0)." in found[1]


# --- references -------------------------------------------------------------------------------------------------------

MADE = {
    "a": Made("text of a", {"n": [10, {"x": "deep"}], "t": "é", "with-dash": 1}, ("/w/f", "/w/g"), "ok", 0.5),
    "b-1": Made("only text", status="failed"),
}


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("{{ needs.b-1 }}", "only text"),
        ("{{needs.b-1.result}}", "only text"),
        ("{{ needs.a.text }}!", "text of a!"),
        ("{{ needs.a.data.n.1.x }}", "deep"),
        ("{{ needs.a.result.n.0 }}", "10"),
        ("{{ needs.a.data.with-dash }}", "1"),
        ("{{ needs.a.data.n }}", '[\n 10,\n {\n  "x": "deep"\n }\n]'),
        ("{{ needs.a.files }}", "/w/f\n/w/g"),
        ("{{ needs.a.status }} {{ needs.a.cost }}", "ok 0.5"),
        ("{{ name }} {{needs}} {% x %} ${{ needs.a }", "{{ name }} {{needs}} {% x %} ${{ needs.a }"),
    ],
)
def test_references_are_filled_in_and_all_else_stays(text: str, made: str) -> None:
    assert filled(text, MADE) == made


@pytest.mark.parametrize(
    "text", ["{{ needs.a.data.n.2 }}", "{{ needs.a.data.none }}", "{{ needs.a.data.t.0 }}", "{{ needs.c }}", "{{ needs.b-1.data.x }}"]
)
def test_what_is_not_there_is_named(text: str) -> None:
    with pytest.raises(Absent, match="cannot be filled in"):
        filled(text, MADE)


@pytest.mark.parametrize(
    ("data", "path", "there"),
    [
        (None, "title", r"has made no data\. \{\{ needs\.a\.text \}\} is what it wrote"),
        ({"name": 1, "n": [1]}, "title", r"it has 'name', 'n'\."),
        ({}, "title", r"it is empty\."),
        ({"n": [1, 2]}, "n.2", r"it is a list of 2, counted from 0\."),
        ({"n": [1, 2]}, "n.-1", r"it is a list of 2, counted from 0\."),
        ({"n": [1, 2]}, f"n.{'9' * 5000}", r"it is a list of 2, counted from 0\."),
        ({"t": "word"}, "t.0", r'it is "word", which has no parts\.'),
    ],
)
def test_what_there_is_instead_is_named(data: Any, path: str, there: str) -> None:
    with pytest.raises(Absent, match=there):
        filled(f"{{{{ needs.a.data.{path} }}}}", {"a": Made("x", data)})


def test_what_an_agent_wrote_is_not_looked_at_for_references() -> None:
    assert filled("{{ needs.a.text }}", {"a": Made("{{ needs.b.text }}"), "b": Made("secret")}) == "{{ needs.b.text }}"


@given(st.text(max_size=200))
def test_any_text_without_references_stays_as_it_is(text: str) -> None:
    if not reference.found(text):
        assert filled(text, {}) == text


# --- as people write them ---------------------------------------------------------------------------------------------

YAML = """
name: night
parallel: 2
max_cost: 1.5
on_failure: skip
cwd: sub
defaults: {model: sonnet, timeout: 60}
tasks:
  - id: survey
    prompt: Look around.
    tools: Read,Grep
  - title: Run the tests
    run: pytest -q
    needs: survey
  - just a prompt
"""


def test_yaml() -> None:
    made = from_yaml(YAML, cwd="/w")
    assert made.problems == []
    assert made.tasks is not None
    assert (made.tasks.name, made.tasks.parallel, made.tasks.max_cost, made.tasks.on_failure, made.tasks.cwd) == (
        "night",
        2,
        1.5,
        OnFailure.SKIP,
        "/w/sub",
    )
    survey, tests, last = made.tasks.tasks
    assert (survey.id, survey.options) == ("survey", {"model": "sonnet", "timeout": 60, "tools": "Read,Grep"})
    assert (tests.id, tests.kind, tests.needs, tests.options) == ("run-the-tests", TaskKind.SHELL, ("survey",), {"timeout": 60})
    assert (last.id, last.text) == ("3", "just a prompt")
    assert made.places == {0: "line 9", 1: "line 12", 2: "line 15"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tasks:\n  - id: a\n   prompt: x\n", "line 3, column 4: is no YAML"),
        ("tasks: [", "line 1, column 9: is no YAML"),
        ("a: \0", "is no YAML"),
        ("", "tasks: is missing"),
        ("tasks: none", "tasks: is missing"),
        ("tasks:\n  - id: a\n    prompt: x\n    prompt: y\n", "line 4: 'prompt' stands twice"),
        ("tasks: []\ntasks: []\n", "line 2: 'tasks' stands twice"),
        ("places: 1\nname_of: 2\nitems: 3\nself: 4\ntasks: [x]", "name_of: is nothing that a list has"),
        ("1: 2\ntasks: [{3: 4}]", "tasks[0] '1' (line 2): has nothing to do"),
        ("cwd: 5\ntasks: [x]", "cwd: must be a path (given: 5)"),
        ("cwd: ''\ntasks: [x]", "cwd: is empty"),
        ("tasks:\n- &a [x, *a]\n", "unfolds to more than"),
        ("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)), "unfolds"),
        ("[" * 5000, "YAML"),
        ("tasks:\n  - id: a\n    prompt: x\n    needs: [b]\n", "tasks[0] 'a' (line 2): needs 'b'"),
        ("!!python/object/apply:os.system [id]", "is no YAML"),
        ("tasks:\n- prompt: !!int ''", "a value is not of the kind that its tag"),
    ],
)  # fmt: skip
def test_bad_yaml_is_told_with_line_and_column(text: str, said: str) -> None:
    found = words(from_yaml(text, cwd="/w"))
    assert any(said in problem for problem in found), found


@pytest.mark.parametrize(
    "text",
    [
        "Task 1: Do this\nmore\nTask 2: Do that",
        "# Plan\n\n## Task 1: Do this\nmore\n\n## Task 2 - Do that\n",
        "- **Task 1:** Do this\nmore\n- **Task 2**: Do that\n",
        "1. Task 1: Do this\nmore\n2. Task 2: Do that",
        "1. Do this\nmore\n2. Do that\n",
    ],
)
def test_markdown(text: str) -> None:
    made = from_markdown(text, cwd="/w")
    assert words(made) == []
    assert made.tasks is not None
    assert [(task.id, task.text) for task in made.tasks.tasks] == [("1", "Do this\nmore"), ("2", "Do that")]


def test_code_in_markdown_is_part_of_its_task() -> None:
    made = from_markdown("Task 1: Write this:\n```\nTask 2: not one\n```\nTask 2: one", cwd="/w")
    assert made.tasks is not None
    assert [task.text for task in made.tasks.tasks] == ["Write this:\n```\nTask 2: not one\n```", "one"]


def test_markdown_without_tasks_says_how_to_write_them() -> None:
    assert "Task 1:" in words(from_markdown("Hello", cwd="/w"))[0]
