"""Tasks of five kinds, from a sum to a system of thirty files, with the real CLI and a model that plays them in full: the hard ones are hard."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from cc_executor import cc_execute
from cc_executor.model.receipt import Standing
from cc_executor.rehearsal.loopback import API_KEY
from cc_executor.rehearsal.scripts import Block, Script, Turn
from cc_executor.rehearsal.server import ServedRehearsal, serving
from cc_executor.runtime.result import Result
from cc_executor.shim import records
from support.leaks import await_none

pytestmark = [pytest.mark.usefixtures("claude_cli"), pytest.mark.timeout(200)]

PYTHON: Final = f"'{sys.executable}' -I"
ABREAST: Final = 3  # on two cores; a CLI mostly waits
AT_ONCE: Final = 6  # agents; each is a process of 300 MB
UNICODE: Final = "ÄÖÜß 漢字 かな 한국어 العربية עברית 👩‍👩‍👧‍👦 e\u0301 \u202eabc\u202c 𝕏 \u200b|"
ESSAY: Final = "A sentence of a long essay, which says little and says it again. " * 10_000  # 660 kB
MANY: Final = 30
MODULE: Final = "{cwd}/module.py"
KEPT: Final = 32_000  # characters of an answer that a receipt holds


@dataclass(frozen=True)
class Task:
    """What is asked for, what the model does, and what must be there then."""

    prompt: str
    turns: tuple[Turn, ...]
    text: str
    verify: str | None = None
    expect: tuple[str, ...] = ()


def says(text: str, **more: Any) -> Turn:
    return Turn(blocks=(Block(text=text, **more),))


def calling(*blocks: Block) -> Turn:
    return Turn(blocks=blocks)


def answers(prompt: str, text: str, **more: Any) -> Task:
    return Task(prompt, (says(text, **more),), text=text)


def writes(prompt: str, verify: str, files: dict[str, str]) -> Task:
    """Each file in a turn of its own, as agents do."""
    turns = [
        calling(Block(text=f"I write {name}."), Block(tool="Write", input={"file_path": f"{{cwd}}/{name}", "content": content}))
        for name, content in files.items()
    ]
    return Task(prompt, (*turns, says("All is written.")), text="All is written.", verify=verify, expect=tuple(files))


def in_folder(code: str) -> str:
    """A command that runs Python with what the folder holds."""
    return f"{PYTHON} -c \"import sys; sys.path.insert(0, '.'); {code}\""


def functions(count: int) -> str:
    return "".join(f"def power_{n}(value):\n    return value ** {n}\n\n\n" for n in range(count))


def calls(count: int) -> str:
    return in_folder(f"import made; assert [getattr(made, f'power_{{n}}')(2) for n in range({count})] == [2 ** n for n in range({count})]")


CATEGORIES: Final[dict[str, dict[str, Task]]] = {
    "simple": {
        "simple_math": answers("What is 15 + 27?", "42"),
        "calculations": answers("12 * 12, 1000 / 8 and 2 ** 10?", "144, 125 and 1024"),
        "fibonacci": answers("The first ten Fibonacci numbers.", "0, 1, 1, 2, 3, 5, 8, 13, 21, 34"),
        "echo_test": answers("Say exactly: 'a  b\t\"c\" $d `e` {f} \\g'", 'a  b\t"c" $d `e` {f} \\g'),
        "date_test": answers("Which day is the last of February 2028?", "2028-02-29, a Tuesday"),
    },
    "medium": {
        "reverse_string": writes("Reverse a string.", f"{PYTHON} made.py | grep -qx cba", {"made.py": "print('abc'[::-1])\n"}),
        "recursion": writes(
            "A recursive factorial.",
            f"{PYTHON} made.py | grep -qx 120",
            {"made.py": "def f(n):\n    return 1 if n < 2 else n * f(n - 1)\n\n\nprint(f(5))\n"},
        ),
        "five_functions": writes("Five functions.", calls(5), {"made.py": functions(5)}),
        "ten_functions": writes("Ten functions.", calls(10), {"made.py": functions(10)}),
        "haikus": answers("Twenty haikus.", "An old silent pond\nA frog jumps into the pond\nSplash! Silence again\n\n" * 20, lines=True),
        "recipe": answers(
            "A recipe in Markdown.", "# Soup\n\n1. Water\n2. Salt\n\n| what | how much |\n|---|---|\n| water | 1 l |", lines=True
        ),
        "story_outline": answers("The outline of a story.", "".join(f"{n}. Chapter {n}\n" for n in range(1, 101)) + "End", lines=True),
    },
    "complex": {
        "python_checklist": answers("A checklist.", "".join(f"- [ ] point {n}\n" for n in range(500)) + "done", lines=True),
        "todo_architecture": writes(
            "A todo application: model, store, view, tests.",
            f"{PYTHON} tests/check.py",
            {
                "model.py": "class Todo:\n    def __init__(self, text):\n        self.text = text\n",
                "store.py": "class Store(list):\n    pass\n",
                "view.py": "def show(store):\n    return [todo.text for todo in store]\n",
                "tests/check.py": "import sys\nsys.path.insert(0, '.')\nimport model, store, view\n"
                "kept = store.Store([model.Todo('a'), model.Todo('b')])\nassert view.show(kept) == ['a', 'b']\n",
            },
        ),
        "hello_world_prod": writes(
            "Hello world, ready for production.",
            f"{PYTHON} app/main.py | grep -qx 'Hello, world!'",
            {"app/main.py": "print('Hello, world!')\n", "app/README.md": "# Hello\n", "app/Makefile": "run:\n\tpython main.py\n"},
        ),
        "large_essay": answers("An essay of 100,000 words.", ESSAY.strip(), piece=512),
        "comparison_table": answers(
            "A table of 200 rows.", "| a | b |\n|---|---|\n" + "\n".join(f"| {n} | {n * n} |" for n in range(200)), lines=True
        ),
        "async_guide": answers("A guide with code.", ("## Step\n\n```python\nawait step()\n```\n\n" * 200).strip(), lines=True),
        "webdev_comparison": answers("Compare ten frameworks.", "\n\n".join(f"### {n}\n\n> quoted **{n}**" for n in range(10))),
    },
    "edge_cases": {
        "unicode_test": answers(f"Say: {UNICODE}", UNICODE, piece=1),
        "empty_response": answers("Say nothing.", ""),
        "long_prompt": answers("Summarise: " + "a word " * 70_000, "Words."),
    },
    "stress": {
        "code_review": Task(
            "Read all of the module, piece by piece, and mend the bug.",
            (
                calling(Block(tool="Write", input={"file_path": MODULE, "content": "# a line\n" * 2000 + "print(1 + 1 == 3)\n"})),
                calling(*(Block(tool="Read", input={"file_path": MODULE, "offset": at, "limit": 400}) for at in range(1, 2001, 400))),
                calling(Block(tool="Edit", input={"file_path": MODULE, "old_string": "== 3", "new_string": "== 2"})),
                calling(Block(tool="Bash", input={"command": f"{PYTHON} module.py", "description": "Run it"})),
                says("Mended."),
            ),
            text="Mended.",
            verify=f"{PYTHON} module.py | grep -qx True",
            expect=("module.py",),
        ),
        "system_design": writes(
            f"A system of {MANY} parts.",
            in_folder(f"assert sum(__import__(f'part_{{n}}').NUMBER for n in range({MANY})) == {sum(range(MANY))}"),
            {f"part_{n}.py": f"NUMBER = {n}\n" for n in range(MANY)},
        ),
    },
}


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def done(task: Task, folder: Path, *, limit: float = 120) -> tuple[Result, ServedRehearsal]:
    with serving(Script(turns=task.turns), cwd=str(folder), pace=0) as served:
        environ = {**os.environ, "ANTHROPIC_BASE_URL": served.url, "ANTHROPIC_API_KEY": API_KEY}
        result = await cc_execute(
            task.prompt, cwd=folder, environ=environ, tools="Read,Write,Edit,Bash", timeout=limit, verify=task.verify, expect=task.expect
        )
    return result, served


async def is_done_whole(name: str, task: Task, folder: Path) -> None:
    result, served = await done(task, folder)
    assert result.ok, (name, result.receipt.outcome)
    if len(task.text) <= KEPT:
        assert result.text == task.text, name
    else:
        assert (result.text[: KEPT // 2], result.text[-KEPT // 2 :]) == (task.text[: KEPT // 2], task.text[-KEPT // 2 :])
        assert task.text.encode() in (result.folder / records.STDOUT).read_bytes(), "the journal has all of it"
    asked = [request for request in served.requests if request.kind == "main"]
    assert asked[0].size > len(task.prompt.encode())
    assert {request.turn for request in asked} == set(range(len(task.turns))), f"{name} was played in full"
    assert result.receipt.standing is (Standing.VERIFIED if task.verify else Standing.CLAIMED), (name, result.receipt.checks)


@pytest.mark.parametrize("category", CATEGORIES)
async def test_every_task_of_a_category_is_done_whole(category: str, tmp_path: Path) -> None:
    abreast = anyio.Semaphore(ABREAST)

    async def one(name: str, task: Task) -> None:
        async with abreast:
            await is_done_whole(name, task, made(tmp_path / name))

    async with anyio.create_task_group() as tasks:
        for name, task in CATEGORIES[category].items():
            tasks.start_soon(one, name, task)
    assert not await_none([tmp_path])


async def test_agents_that_reckon_at_the_same_time_each_have_their_own_answer(tmp_path: Path) -> None:
    """The task `concurrent_math` of the category stress."""
    found: dict[int, str] = {}

    async def reckon(number: int) -> None:
        result, _ = await done(answers(f"What is {number} + {number}?", str(2 * number)), made(tmp_path / str(number)))
        assert result.ok, result.receipt.outcome
        found[number] = result.text

    async with anyio.create_task_group() as tasks:
        for number in range(AT_ONCE):
            tasks.start_soon(reckon, number)
    assert found == {number: str(2 * number) for number in range(AT_ONCE)}
    assert not await_none([tmp_path])
