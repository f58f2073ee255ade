"""Bounds that the environment sets hold outside of cells, too: for the commands, and for Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import anyio
import pytest

from cc_executor import Limits, cc_execute, cc_execute_list
from cc_executor.cli.codes import OUTCOME_CODES
from cc_executor.errors import InvalidRequest
from cc_executor.model.outcome import OutcomeKind
from cc_executor.runtime.bounds import bounded, bounds_of, keep_cap, with_kept_cap
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder
from cc_executor.store.tasklists import ListHome
from cc_executor.taskplan import plan
from cc_executor.tasks import carry_on, open_list
from support.environments import CHECKOUT
from support.looks import eventually


def test_what_is_given_wins_and_what_is_open_is_bounded() -> None:
    environ = {
        "CC_EXECUTOR_TIMEOUT": "60",
        "CC_EXECUTOR_MAX_COST": "2",
        "CC_EXECUTOR_MAX_TURNS": "7",
        "CC_EXECUTOR_MAX_COST_PER_DAY": "none",
    }
    assert bounds_of(environ) == {"timeout": 60.0, "max_cost": 2.0, "max_turns": 7}
    assert bounded({"timeout": 5, "max_cost": None, "model": "m"}, environ) == {"timeout": 5, "max_cost": 2.0, "max_turns": 7, "model": "m"}
    limits = Limits(wall=9)
    assert bounded({"limits": limits}, environ) == {"limits": limits, "max_cost": 2.0, "max_turns": 7}
    assert bounded({}, {"CC_EXECUTOR_TIMEOUT": ""}) == {}


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf", "1,5"])
@pytest.mark.parametrize("name", ["TIMEOUT", "MAX_COST", "MAX_TURNS", "MAX_COST_PER_DAY"])
def test_what_is_no_bound_is_refused_and_not_taken_for_none(name: str, value: str) -> None:
    with pytest.raises(InvalidRequest, match=f"CC_EXECUTOR_{name} is '{value}'; .* Change or unset it"):
        bounds_of({f"CC_EXECUTOR_{name}": value})


async def test_python_keeps_the_bounds_of_the_environment(tmp_path: Path) -> None:
    environ = {**os.environ, "CC_EXECUTOR_TIMEOUT": "0.5"}
    assert (await cc_execute("sleep 600", agent="shell", cwd=tmp_path, environ=environ)).status == "timeout"
    assert (await cc_execute("sleep 0.7", agent="shell", cwd=tmp_path, environ=environ, timeout=600)).status == "ok"


async def test_a_list_keeps_the_days_bound_of_the_environment(tmp_path: Path) -> None:
    environ = {**os.environ, "CC_EXECUTOR_MAX_COST_PER_DAY": "0.5"}
    task = {"id": "a", "prompt": "Greet the reader.", "rehearse": "hello", "max_cost": 0.75}
    found = await cc_execute_list([task], cwd=tmp_path, environ=environ)
    assert (found.status, found.tasks["a"].begun) == ("budget", 0)


async def test_the_runs_of_a_list_keep_the_bound_of_the_environment(tmp_path: Path) -> None:
    environ = {**os.environ, "CC_EXECUTOR_MAX_COST": "2"}
    greet = {"prompt": "Greet the reader.", "rehearse": "hello"}
    result = await cc_execute_list(
        [{"id": "a"} | greet, {"id": "b", "max_cost": 3} | greet, {"id": "c", "run": "true"}], cwd=tmp_path, environ=environ
    )
    assert [RunFolder(result.result(task).folder).request().limits.cost for task in "abc"] == [2, 3, None]
    # The list's own bound holds, too, where less is left of it.
    result = await cc_execute_list([{"id": "a"} | greet], cwd=tmp_path, environ=environ, max_cost=1)
    assert RunFolder(result.result("a").folder).request().limits.cost == 1


@pytest.mark.parametrize("options", [(), ("--detach",)])
def test_a_command_keeps_the_bounds_of_the_environment(options: tuple[str, ...], tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(CHECKOUT / "src"), "CC_EXECUTOR_TIMEOUT": "0.5"}

    def cli(*arguments: str) -> int:
        argv = [sys.executable, "-m", "cc_executor.cli", *arguments]
        return subprocess.run(
            argv, env=environ, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
        ).returncode

    code = cli("run", "--agent", "shell", "sleep 600", *options)
    assert (cli("attach") if options else code) == OUTCOME_CODES[OutcomeKind.TIMEOUT]


ELSEWHERE: Final = """import sys; from cc_executor import cc_execute_task_list
cc_execute_task_list([
    {'id': 'one', 'run': 'touch up; until [ -e stop ]; do sleep 0.05; done'},
    {'id': 'two', 'prompt': 'Greet the reader.', 'rehearse': 'hello', 'needs': ['one']},
], cwd=sys.argv[1])"""


def test_a_list_that_goes_on_elsewhere_keeps_the_bound_that_it_was_started_under(tmp_path: Path, state_folder: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ELSEWHERE, str(tmp_path)], env={**os.environ, "CC_EXECUTOR_MAX_COST": "2"})
    try:
        eventually((tmp_path / "up").exists, within=30, what="the first task runs")
    finally:
        process.kill()
        process.wait()
    (tmp_path / "stop").touch()
    home = StateHome(state_folder)
    (folder,) = ListHome(home).folders()
    state = anyio.run(lambda: carry_on(folder, home=home, environ=os.environ))
    assert [home.find(state.task(name).run_id).request().limits.cost for name in ("one", "two")] == [None, 2]


def test_who_joins_a_list_that_somebody_runs_lifts_no_bound(tmp_path: Path, state_folder: Path) -> None:
    folder = open_list(plan([{"id": "a", "run": "true"}], cwd=str(tmp_path)), StateHome(state_folder), fresh=False)

    def kept(*caps: float | None) -> list[str | None]:
        found: list[str | None] = []
        for cap in caps:
            keep_cap(folder, {} if cap is None else {"max_cost": cap})
            found.append(with_kept_cap({}, folder).get("CC_EXECUTOR_MAX_COST"))
        return found

    assert kept(None, 2, 3) == [None, "2.0", "3.0"], "who runs it again says anew what it may cost"
    assert with_kept_cap({"CC_EXECUTOR_MAX_COST": "0.5"}, folder)["CC_EXECUTOR_MAX_COST"] == "0.5", "the smaller one, where it goes on"
    assert with_kept_cap({"CC_EXECUTOR_MAX_COST": "5"}, folder)["CC_EXECUTOR_MAX_COST"] == "3.0"
    with folder.claimed():
        assert kept(None, 4, 1) == ["3.0", "3.0", "1.0"]
    assert kept(None) == [None]
