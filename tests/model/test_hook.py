"""Hooks as people write them: what is understood, and everything that is wrong said at once."""

from __future__ import annotations

from typing import Any

import pytest

from cc_executor.model.hook import TIMEOUT, Hook, Moment, OnHookFailure, StoredHook, described, hooks_from, payload, refusal
from cc_executor.model.receipt import Receipt
from cc_executor.model.tasktext import from_yaml
from support.receipts import receipt


def call(_: dict[str, Any]) -> None: ...


@pytest.mark.parametrize(
    "written",
    [
        {"after_run": "notify done"},
        {"after_run": ["notify done"]},
        {"after_run": {"run": "notify done"}},
        [{"when": "after_run", "run": "notify done"}],
        [Hook(moment=Moment.AFTER_RUN, command="notify done", name="notify")],
    ],
    ids=["command", "several", "mapping", "list", "hook"],
)
def test_a_hook_may_be_written_in_several_ways(written: object) -> None:
    made = hooks_from(written)
    assert not made.problems
    assert made.hooks == (Hook(moment=Moment.AFTER_RUN, command="notify done", name="notify", timeout=TIMEOUT),)


def test_functions_and_commands_stand_side_by_side_and_what_is_said_twice_is_once() -> None:
    made = hooks_from(
        {"before_run": [call, "check", {"run": "check"}], "on_event": {"call": call, "events": ["tool_called"], "timeout": 2}}
    )
    assert not made.problems
    assert [(hook.moment.value, hook.command, hook.call) for hook in made.hooks] == [
        ("before_run", "", call),
        ("before_run", "check", None),
        ("on_event", "", call),
    ]


def test_everything_that_is_wrong_is_said_at_once() -> None:
    wrong = [
        {"when": "sometimes", "run": "x"},
        {"when": "after_run"},
        {"when": "after_run", "run": "x", "call": call},
        {"when": "after_run", "run": "x", "timeout": 0},
        {"when": "after_run", "run": "x", "timeout": True},
        {"when": "after_run", "run": "x", "on_failure": "explode"},
        {"when": "after_run", "run": "x", "events": ["tool_called"]},
        {"when": "on_event", "run": "x", "events": ["exited", "ToolCalled"]},
        {"when": "after_run", "run": "x", "env": ["A B"]},
        {"when": "after_run", "run": "x", "min_seconds": -1},
        {"when": "after_list", "run": "x", "min_seconds": 60},
        {"when": "after_run", "run": "x", "shell": "zsh"},
        "after_run",
    ]
    made = hooks_from(wrong)
    assert made.hooks == ()
    assert len(made.problems) == len(wrong)
    assert all(problem.endswith(".") for problem in made.problems)
    assert "one of before_run, after_run" in made.problems[0]
    assert "waits for 'ToolCalled', which no event is; there are agent_failed, answered, " in made.problems[7]
    assert "takes min_seconds for after_run, after_task, on_error only" in made.problems[10]


def test_a_file_holds_commands_only() -> None:
    assert hooks_from({"after_run": call}, callables=False).problems == ["the hook 'call' can only be a command here (`run`)."]
    assert hooks_from("after_run").problems[0].startswith("must be a mapping")


def test_a_list_in_yaml_has_hooks_of_its_own_and_they_do_not_make_it_another_list() -> None:
    text = "tasks:\n- run: echo hi\n"
    plain, hooked = from_yaml(text, cwd="/x"), from_yaml(f"hooks:\n  after_list: notify\n{text}", cwd="/x")
    assert not hooked.problems
    assert described(hooked.hooks) == ["hook after_list: notify  (10 s, tell)"]
    assert plain.tasks is not None
    assert hooked.tasks is not None
    assert plain.tasks.digest() == hooked.tasks.digest()
    [problem] = from_yaml(f"hooks: {{after_lunch: notify}}\n{text}", cwd="/x").problems
    assert "after_lunch" in str(problem)


def test_a_stored_hook_is_the_same_hook_and_a_function_leaves_its_name() -> None:
    hook = Hook(moment=Moment.AFTER_RUN, command="x", name="n", timeout=3, on_failure=OnHookFailure.STOP, env=("A",), min_seconds=2)
    assert StoredHook.model_validate_json(StoredHook.of(hook).model_dump_json()).hook() == hook
    mine = Hook(moment=Moment.AFTER_RUN, call=call, name="call")
    assert StoredHook.of(mine).hook() == Hook(moment=Moment.AFTER_RUN, name="call")
    assert StoredHook.of(mine).hook().key == mine.key


def test_only_a_reason_refuses() -> None:
    assert refusal({"refuse": "not today"}) == "not today"
    assert refusal({"refuse": True}) == "it gave no reason"
    assert [refusal(answer) for answer in (None, True, "refuse", {"refuse": ""}, {"allow": True}, [])] == [None] * 6
    given = payload(Moment.AFTER_RUN, Hook(moment=Moment.AFTER_RUN, name="n"), run={"id": "1"}, task=None)
    assert given == {"schema": 1, "moment": "after_run", "hook": "n", "run": {"id": "1"}}


def test_a_receipt_of_before_keeps_its_digest_and_hooks_are_in_that_of_a_new_one() -> None:
    old = receipt()
    fields = old.model_dump(mode="json")
    del fields["hooks"]  # as it was written before there were hooks
    assert Receipt.model_validate(fields).is_intact
    assert old.digest == "4817b4ccc91d7d64644f519eeea06a22360a5c8f152be00096ff459b9707c1a0"
    reports = [{"hook": "x", "moment": "after_run", "status": "failed", "detail": "exit code 3"}]
    new = Receipt.model_validate(fields | {"hooks": reports}).sealed()
    assert new.digest != old.digest
    assert not new.model_copy(update={"hooks": ()}).is_intact
