"""What a request for a task list becomes, without a server: everything that is wrong at once, folders, times and the rules' bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cc_executor.errors import InvalidTaskList
from cc_executor.model.request import RunRequest
from cc_executor.server.listrequest import ListRequests
from cc_executor.server.policy import Rules


def requests(root: Path, **more: Any) -> ListRequests:
    return ListRequests(root=root, unfit=more.pop("unfit", ()), allowed=more.pop("allowed", lambda request: request), **more)


def test_everything_that_is_wrong_is_said_at_once_with_its_place(tmp_path: Path) -> None:
    body = {
        "tasks": [{"prompt": "x", "cli": "y"}, {"id": "b", "prompt": "x", "needs": "c", "cli": "y", "env": {}}, {"id": "", "cli": 1}],
        "defaults": {"env": {}},
        "prompt": "p",
        "hooks": {},
        "execution_id": "e",
        "fresh": "yes",
        "cwd": "no/such",
    }
    with pytest.raises(InvalidTaskList) as error:
        requests(tmp_path, unfit={"env", "cli"}).plan(body)
    assert list(error.value.problems[:10]) == [
        "prompt: stands beside tasks: send a prompt, or tasks that have one each.",
        "hooks: are nothing that comes over a network.",
        "execution_id: is given by the server. A header Idempotency-Key makes a request that is sent again the same one.",
        "fresh: must be true or false.",
        f"cwd: there is no folder {tmp_path}/no/such. Make it, or name another.",
        "defaults: env is not an option of a request.",
        "tasks[0] '1': cli is not an option of a request.",
        "tasks[1] 'b': cli is not an option of a request.",
        "tasks[1] 'b': env is not an option of a request.",
        "tasks[2] '': cli is not an option of a request.",
    ]
    assert any("needs 'c'" in problem for problem in error.value.problems[10:]), "and what is wrong with the list itself"
    assert body["prompt"] == "p", "what was sent is as it was"


@pytest.mark.parametrize("body", [{"tasks": ["a"], "fresh": 1}, {"tasks": ["a"], "hooks": []}, {"tasks": ["a"], "execution_id": ""}])
def test_a_list_that_is_sound_but_for_one_thing_is_refused(body: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidTaskList) as error:
        requests(tmp_path).plan(body)
    assert len(error.value.problems) == 1


@pytest.mark.parametrize("tasks", [["x\ud800"], [{"run": "true", "id": "\udcff"}]])
def test_what_is_no_text_is_refused_and_not_kept(tasks: list[Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidTaskList) as error:
        requests(tmp_path).plan({"tasks": tasks, "fresh": None})
    assert len(error.value.problems) == 2


def test_a_folder_whose_name_no_disk_takes_is_said_not_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidTaskList, match=r"cwd: there is no folder .*xxx\. Make it, or name another\."):
        requests(tmp_path).plan({"tasks": ["a"], "cwd": "x" * 300})


@pytest.mark.parametrize(("cwd", "path"), [(None, ""), ("", ""), ("below", "/below"), ("{root}/below", "/below")])
def test_a_list_works_in_the_folder_that_it_names_seen_from_the_server_s(cwd: str | None, path: str, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    body = {"tasks": ["a"], "cwd": cwd and cwd.format(root=tmp_path), "fresh": True}
    assert Path(requests(tmp_path).plan(body).tasks.cwd) == Path(f"{tmp_path}{path}")


def test_the_time_of_each_task_holds_where_a_task_or_the_defaults_name_none(tmp_path: Path) -> None:
    def times(**more: Any) -> list[object]:
        planned = requests(tmp_path).plan({"tasks": ["a", {"prompt": "b", "timeout": 9}], **more})
        return [task.options.get("timeout") for task in planned.tasks.tasks]

    assert times() == [None, 9]
    assert times(timeout_per_task=60) == [60, 9]
    assert times(timeout_per_task=60, defaults={"timeout": 30}) == [30, 9]
    assert times(timeout_per_task=60, defaults={"model": "opus"}) == [60, 9]
    with pytest.raises(InvalidTaskList):
        times(timeout_per_task=60, defaults=["model"])


def test_a_bound_of_the_rules_is_a_task_s_unless_the_list_s_own_is_tighter(tmp_path: Path) -> None:
    rules = Rules(max_cost=2.0).applied

    def bounds(**more: Any) -> list[object]:
        tasks = [{"prompt": "a"}, {"run": "true"}, {"prompt": "c", "max_cost": 1}]
        return [task.options.get("max_cost") for task in requests(tmp_path, allowed=rules).plan({"tasks": tasks, **more}).tasks.tasks]

    assert bounds() == [2.0, None, 1]
    assert bounds(max_cost=2.5) == [2.0, None, 1]
    assert bounds(max_cost=2.0) == [None, None, 1]


def test_what_the_rules_change_of_a_request_is_an_option_of_its_task(tmp_path: Path) -> None:
    def allowed(request: RunRequest) -> RunRequest:
        limits = request.limits.model_copy(update={"wall": 60.0, "stall": 7.0, "turns": 3})
        return request.model_copy(update={"limits": limits, "output_schema": {"type": "object"}, "model": "opus"})

    (task,) = requests(tmp_path, allowed=allowed).plan({"tasks": ["a"]}).tasks.tasks
    assert task.options == {"timeout": 60.0, "stall_timeout": 7.0, "max_turns": 3, "schema": {"type": "object"}, "model": "opus"}
