"""What a command loads: its own room, and not those of the others. Whoever calls one in a terminal waits for all that is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from cc_executor.cli.commands import COMMANDS

ROOMS: Final = {f"cc_executor.cli.{row.place.partition(':')[0]}" for row in COMMANDS.values() if row.place}
LOADED: Final = "import json, sys\nfrom cc_executor.cli import main\ntry:\n    main()\nfinally:\n    print(json.dumps(sorted(sys.modules)), file=sys.stderr)"


def loaded_by(*words: str, cwd: Path) -> set[str]:
    """The modules of a fresh process after this command."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *words], cwd=cwd, env=os.environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    ("words", "rooms", "spared"),
    [
        ("--version", "", "pydantic msgspec anyio cc_executor.model"),
        ("--help", "", "pydantic msgspec anyio cc_executor.model"),
        ("tasks --help", "", "msgspec anyio cc_executor.model"),
        ("cancle", "", "msgspec anyio cc_executor.model"),
        ("completion bash", "completion", "msgspec anyio cc_executor.model"),
        (
            "run --agent shell true",
            "run answer",
            "cc_executor.policy.lint cc_executor.policy.rules cc_executor.tasks cc_executor.store.tasklists",
        ),
        ("list", "listing", "anyio asyncio cc_executor.runtime.run cc_executor.runtime.history"),
        ("show", "show", "cc_executor.policy.lint cc_executor.runtime.again cc_executor.store.tasklists"),
        ("tail", "tail", "anyio asyncio cc_executor.runtime.run cc_executor.store.tasklists"),
        ("history", "history", "anyio asyncio cc_executor.api cc_executor.policy.lint cc_executor.store.bundle"),
        ("cancel", "control", "cc_executor.runtime.run cc_executor.store.tasklists"),
        ("lint", "lint", "anyio asyncio cc_executor.api"),
        ("validate missing.md", "validate", "cc_executor.tasks cc_executor.taskcommands"),
        ("tasks run missing.md", "tasks", "cc_executor.taskcommands"),
        ("tasks show", "tasklook", "anyio asyncio cc_executor.api cc_executor.taskplan"),
        ("tasks pause", "taskcontrol", "cc_executor.api cc_executor.taskplan cc_executor.runtime.run"),
    ],
)
def test_a_command_loads_its_own_room_and_not_those_of_others(words: str, rooms: str, spared: str, tmp_path: Path) -> None:
    assert all(find_spec(name) for name in spared.split())  # else none of that name could ever be loaded
    loaded = loaded_by(*words.split(), cwd=tmp_path)
    assert loaded & ROOMS == {f"cc_executor.cli.{room}" for room in rooms.split()}
    assert loaded & set(spared.split()) == set()
