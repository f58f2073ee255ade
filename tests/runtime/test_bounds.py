"""Bounds that the environment sets hold outside of cells, too: for the commands, and for Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cc_executor import Limits, cc_execute, cc_execute_list
from cc_executor.cli.codes import OUTCOME_CODES
from cc_executor.errors import InvalidRequest
from cc_executor.model.outcome import OutcomeKind
from cc_executor.runtime.bounds import bounded, bounds_of
from cc_executor.store.journal import RunFolder
from support.environments import CHECKOUT


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
