"""Limits and validations as people write them, and that lists from before they could be written are still the same work."""

from __future__ import annotations

from typing import Any

import pytest

from cc_executor.api import take_care
from cc_executor.errors import InvalidRequest, InvalidTaskList
from cc_executor.model.care import OnLimit, OnOutputLimit, OnUnchecked, Validation
from cc_executor.model.request import RunRequest
from cc_executor.model.tasklist import TaskList
from cc_executor.model.tasktext import from_items
from cc_executor.policy.retry import Care
from cc_executor.store.home import StateHome
from cc_executor.store.tasklists import ListHome
from cc_executor.taskplan import plan

OLD = (
    {"id": "a", "prompt": "Do it.", "needs": [], "retry": 2, "max_cost": 0.5, "on_failure": "skip"},
    {"id": "b", "run": "make", "needs": "a", "group": "g"},
)


def old(**more: Any) -> TaskList:
    tasks = from_items(OLD, cwd="/w", name="old", **more).tasks
    assert tasks is not None
    return tasks


def test_what_was_digested_before_has_the_same_digest() -> None:
    assert old().digest() == "b4997d2f0b101b5f9f5d6fda1d0d7e5d55d14f7decb742a7cccbdc70a72b5969"
    assert old(max_cost=5.0).digest_with_cap() == "58c59e90c479a4ff01fa32e630d2e0b9707d0c688a2977d3a5e5c2bee71add8a"
    assert RunRequest(prompt="x", cwd="/w").digest() == "d01946ce4a64f83eb282e9483cdd0dbe82dbbe22984a7ef99c6e4fc827639656"


def test_bounds_are_no_part_of_the_work_and_everything_else_is() -> None:
    same = old().digest()
    assert old(max_cost=1, max_cost_per_day=2, on_limit="wait", limit_wait_max=60).digest() == same
    more = [{"on_limit": "wait"}, {"on_output_limit": "concise"}, {"validate": "v"}, {"reask": True, "schema": {}}]
    digests = {from_items([{**OLD[0], **each}], cwd="/w").tasks.digest() for each in more}  # pyright: ignore[reportOptionalMemberAccess]
    assert len(digests) == len(more)


def test_a_validator_is_bounded_where_nobody_says_how() -> None:
    assert from_items([{**OLD[0], "validate": "v"}], cwd="/w").tasks.tasks[0].validation == Validation(  # pyright: ignore[reportOptionalMemberAccess]
        prompt="v", max_cost=0.5, max_turns=20, timeout=600
    )


def test_a_list_that_was_run_when_its_cap_counted_is_found_again(state_folder: Any) -> None:
    lists = ListHome(StateHome(state_folder))
    made = lists.open(old(max_cost=5.0))
    before = made.path.with_name(f"{old(max_cost=5.0).digest_with_cap()[:20]}-1")
    made.path.rename(before)
    assert lists.open(old(max_cost=5.0)).path == before


TEXT = """
on_limit: wait
limit_wait_max: 3600
max_cost_per_day: 20
defaults: {on_output_limit: outline, validate: It works.}
tasks:
  - {id: a, prompt: x, on_limit: stop}
  - {id: b, prompt: y, validate: {prompt: It is fast., model: haiku, max_cost: 0.1}, on_unchecked: accept, loop_guard: stop}
  - {id: c, run: make}
"""


def test_limits_are_keys_of_lists_tasks_and_defaults() -> None:
    tasks = plan(TEXT, cwd="/").tasks
    assert (tasks.on_limit, tasks.limit_wait_max, tasks.max_cost_per_day) == (OnLimit.WAIT, 3600, 20)
    a, b, c = tasks.tasks
    assert (a.on_limit, a.on_output_limit, a.validation) == (OnLimit.STOP, OnOutputLimit.OUTLINE, Validation(prompt="It works."))
    assert b.validation == Validation(prompt="It is fast.", model="haiku", max_cost=0.1)
    assert (b.on_unchecked, b.options) == (OnUnchecked.ACCEPT, {"loop_guard": "stop"})
    assert (c.validation, c.on_output_limit) == (None, OnOutputLimit.STOP)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("{prompt: x, on_limit: sleep}", "on_limit must be 'stop' or 'wait' (given: 'sleep')"),
        ("{prompt: x, on_output_limit: shorter}", "on_output_limit must be 'stop', 'continue', 'concise' or 'outline'"),
        ("{prompt: x, limit_wait_max: 0}", "limit_wait_max must be greater than 0"),
        ("{prompt: x, validate: ''}", "validate.prompt"),
        ("{prompt: x, validate: {prompt: y, colour: red}}", "validate.colour"),
        ("{prompt: x, reask: true}", "has reask and no schema"),
        ("{prompt: x, on_unchecked: accept}", "has on_unchecked and no validate"),
        ("{run: x, on_output_limit: concise}", "has on_output_limit, which means something for an agent alone"),
        ("{run: x, schema: {type: object}}", "has schema, which means something for an agent alone"),
        ("{run: x, rehearse: hello}", "has rehearse, which means something for an agent alone"),
        ("{prompt: x, validate: yes}", "validate must be a text that says what has to hold, or a mapping with prompt"),
        ("{prompt: x, loop_guard: kill}", "loop_guard must be 'off', 'tell' or 'stop' (given: 'kill')"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place(task: str, words: str) -> None:
    with pytest.raises(InvalidTaskList) as caught:
        plan(f"tasks:\n  - {task}\n", cwd="/")
    assert words in str(caught.value)
    assert "(line 2)" in str(caught.value)


def test_options_of_a_run_about_limits() -> None:
    options: dict[str, Any] = {
        "on_limit": "wait",
        "reask": True,
        "schema": {},
        "max_cost_per_day": 3,
        "model": "m",
        "on_output_limit": None,
    }
    assert take_care(options) == (Care(on_limit=OnLimit.WAIT, reask=True), 3)
    assert options == {"schema": {}, "model": "m"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on_limit": "sleep"}, "on_limit must be one of 'stop', 'wait' (given: 'sleep')."),
        ({"on_output_limit": 3}, "on_output_limit must be one of 'stop', 'continue', 'concise', 'outline' (given: 3)."),
        ({"max_cost_per_day": 0}, "max_cost_per_day must be a number greater than 0"),
        ({"limit_wait_max": "long"}, "limit_wait_max must be a number greater than 0"),
        ({"reask": True}, "there is no schema"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        take_care(dict(options))
    assert words in str(caught.value)
