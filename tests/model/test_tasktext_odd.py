"""Lists as people really write them: nothing of them is lost without a word, and every message has the right place and the cure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cc_executor.errors import InvalidTaskList
from cc_executor.taskplan import Plan, plan


def written(folder: Path, text: str, name: str) -> Plan:
    file = folder / name
    file.write_text(text, encoding="utf-8", newline="")
    return plan(file)


@pytest.mark.parametrize(
    ("text", "tasks"),
    [
        pytest.param("\ufeffTask 1: read\nTask 2: write\n", [("1", "read"), ("2", "write")], id="byte order mark"),
        pytest.param("\n\ufeff1. read\n2. write\n", [("1", "read"), ("2", "write")], id="byte order mark before a number"),
        pytest.param(
            "Task 1: a\n````md\n```\nTask 9: shown\n```\nTask 8: shown\n````\nTask 2: b",
            [("1", "a\n````md\n```\nTask 9: shown\n```\nTask 8: shown\n````"), ("2", "b")],
            id="code that shows code",
        ),
        pytest.param(
            "Task 1: a\n```\n``` not its end\nTask 9: shown\n~~~\n```\nTask 2: b",
            [("1", "a\n```\n``` not its end\nTask 9: shown\n~~~\n```"), ("2", "b")],
            id="what looks like the end of code",
        ),
        pytest.param(
            "### **Task 1 – read**\nit\n### Task 2 (optional): write\n### Task #3: test\n### Task 4\nlook at it\n",
            [("1", "read\nit"), ("2", "write (optional)"), ("3", "test"), ("4", "look at it")],
            id="headings",
        ),
        pytest.param(
            "1. read\n   1. first this\n   2. then that\n2. write\n  3. test\n",
            [("1", "read\n   1. first this\n   2. then that"), ("2", "write"), ("3", "test")],
            id="numbers within an item",
        ),
        pytest.param("1. read\n1. write\n1. test\n", [("1", "read"), ("2", "write"), ("3", "test")], id="Markdown counts by itself"),
        pytest.param("Task 1: a\x0cb\nc\u2028d\r\nTask 2: e\r\n", [("1", "a\x0cb\nc\u2028d"), ("2", "e")], id="what is no end of a line"),
    ],
)
def test_markdown_as_people_write_it(tmp_path: Path, text: str, tasks: list[tuple[str, str]]) -> None:
    made = written(tmp_path, text, "plan.md")
    assert [(task.id, task.text) for task in made.tasks.tasks] == tasks


def test_numbers_are_ids_wherever_they_stand(tmp_path: Path) -> None:
    text = "tasks:\n- {run: a}\n- {id: 2, run: b, needs: 1}\n- {run: c, needs: [1, 2]}\n- {id: null, run: d, needs: '3'}\n"
    made = written(tmp_path, text, "plan.yaml")
    assert [(task.id, task.all_needs) for task in made.tasks.tasks] == [("1", ()), ("2", ("1",)), ("3", ("1", "2")), ("4", ("3",))]


@pytest.mark.parametrize("indent", ["\t", 2, None])
def test_json_is_a_list_however_it_is_indented(tmp_path: Path, indent: str | int | None) -> None:
    prompt = "a\ttab, a\nline, \N{GRINNING FACE} and \\t"
    made = written(tmp_path, json.dumps({"tasks": [{"id": "a", "prompt": prompt}]}, indent=indent), "plan.json")
    assert [task.text for task in made.tasks.tasks] == [prompt]


@pytest.mark.parametrize(
    ("name", "text", "problems"),
    [
        (
            "a wrong task hides neither itself nor its place.yaml",
            "tasks:\n- {id: a, command: x}\n- {id: b, run: y, needs: a, need: a, retries: 2}\n- 5\n- {id: d, run: z, needs: '3'}\n",
            [
                "tasks[0] 'a' (line 2): has nothing to do: give it one of prompt (for an agent), run (a command) and call (a Python callable).",
                "tasks[2] '3' (line 4): must be a prompt, a callable or a mapping, not int.",
                "tasks[1] 'b' (line 3): There is no option 'need'. Did you mean needs? There is no option 'retries'. Did you mean retry?",
            ],
        ),
        (
            "what a task has is meant, not what a call has.yaml",
            "tasks:\n- {run: y, notfy: a, no_raise_error: true, on_uncheckd: ok}\n",
            [
                "tasks[0] '1' (line 2): There is no option 'notfy'. There is no option 'no_raise_error'. There is no option 'on_uncheckd'. Did you mean on_unchecked?"
            ],
        ),
        (
            "words of other lists.yaml",
            "tasks:\n- {run: x}\n- {run: y, depends_on: '1', name: b}\n",
            ["tasks[1] '2' (line 3): There is no option 'depends_on'. Did you mean needs? There is no option 'name'. Did you mean title?"],
        ),
        (
            "what only a run has.yaml",
            "tasks:\n- {run: x, label: a, on_kernel_exit: cancel}\n",
            [
                "tasks[0] '1' (line 2): has the option 'label', which is none of a task's: its runs are called by its `title`, or by its id.",
                "tasks[0] '1' (line 2): has the option 'on_kernel_exit', which is none of a task's: its run goes on, and whoever runs the list next takes it up.",
            ],
        ),
        (
            "what each task says by itself.yaml",
            "defaults: {retry: 2, run: x, timeout: 3}\ntasks:\n- {run: y, max_cost_per_day: 2}\n- {run: z}\n",
            [
                "defaults: retry is said of each task by itself: they hold options for the runs of all.",
                "defaults: run is said of each task by itself: they hold options for the runs of all.",
                "tasks[0] '1' (line 3): max_cost_per_day is said of the whole list: put it beside tasks.",
            ],
        ),
        (
            "what is for the runs of all.yaml",
            "model: haiku\ntasks:\n- {run: x}\n",
            [
                (
                    "model: is nothing that a list has; it has name, cwd, parallel, max_cost, max_cost_per_day, on_failure, on_limit, "
                    "limit_wait_max, defaults (options for all its runs), hooks and tasks."
                )
            ],
        ),
        (
            "alone.yaml",
            "tasks:\n- {id: a, run: 12}\n",
            ["tasks[0] 'a' (line 2): run must be a valid string (given: 12). Put it in quotes."],
        ),
        (
            "what YAML reads otherwise.yaml",
            "tasks:\n- {id: no, run: x}\n- {id: 1.10, run: x}\n- {id: c, prompt: yes, needs: no}\n",
            [
                "tasks[0] 'False' (line 2): id is read by YAML as False: put it in quotes.",
                "tasks[1] '1.1' (line 3): id is read by YAML as 1.1: put it in quotes.",
                "tasks[2] 'c' (line 4): prompt must be a valid string (given: True). Put it in quotes.",
                "tasks[2] 'c' (line 4): needs must be a valid tuple (given: False). Put it in quotes.",
            ],
        ),
        (
            "other-numbers.yaml",
            "tasks:\n- {id: 010, run: x}\n- {id: 8, run: x}\n- {id: a, run: y, needs: [8, 0x8]}\n- {id: '09', run: z, needs: 1:30}\n",
            [
                "line 2: id: 010 is read by YAML as another number: put it in quotes.",
                "line 4: needs: 0x8 is read by YAML as another number: put it in quotes.",
                "line 5: needs: 1:30 is read by YAML as another number: put it in quotes.",
                "tasks[0] '8' (line 2): the id '8' stands 2 times: ids are names, give each task its own.",
                "tasks[1] '8' (line 3): the id '8' stands 2 times: ids are names, give each task its own.",
                "tasks[3] '09' (line 5): needs '90', and there is no such task.",
            ],
        ),
        (
            "circles.yaml",
            "tasks:\n- {id: a, run: x, needs: b}\n- {id: b, run: x, needs: a}\n- {id: c, run: x, needs: c}\n",
            [
                "tasks: need each other in a circle: a ← b ← a. Take one of these needs away.",
                "tasks: need each other in a circle: c ← c. Take one of these needs away.",
            ],
        ),
        (
            "colon.yaml",
            "tasks:\n  - prompt: Fix this: that\n",
            [
                "line 2, column 21: is no YAML: mapping values are not allowed here. A text with a colon in it needs quotes, or stands below `|`."
            ],
        ),
        (
            "braces.yaml",
            "tasks:\n  - {id: a, run: x}\n  - prompt: {{ needs.a.text }}\n",
            ["line 3, column 14: is no YAML: found unhashable key. A text that begins with a brace needs quotes, or stands below `|`."],
        ),
        (
            "tabs.yaml",
            "tasks:\n\t- run: x\n",
            ["line 2, column 1: is no YAML: found character '\\t' that cannot start any token. Indent by spaces."],
        ),
        (
            "open.md",
            "Task 1: a\n```\nTask 2: b\n",
            ["line 2: this code block has no end, and tasks stand in it: close it, or they are none."],
        ),
        (
            "cap.yaml",
            "max_cost: 1\ntasks:\n  - {id: a, prompt: x, max_cost: 0.9, validate: {prompt: v, max_cost: 0.5}}\n",
            [
                "tasks[0] 'a' (line 3): may cost $1.40 with its validation, and the whole list $1.00: it could never start. Raise the one or lower the other."
            ],
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_its_cure(tmp_path: Path, name: str, text: str, problems: list[str]) -> None:
    with pytest.raises(InvalidTaskList) as raised:
        written(tmp_path, text, name)
    assert sorted(raised.value.problems) == sorted(problems)
