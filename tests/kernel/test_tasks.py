"""`%%cc_tasks` in real kernels of both ipykernel lines: rehearsals of the real CLI, shell commands and callables."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from kernel.cells import WIDGET_MIME, living, make_gate, wait_for_pid
from support.kernel import Answer, Kernel
from support.looks import eventually

pytestmark = pytest.mark.usefixtures("claude_cli")

MIXED: Final = """%%cc_tasks -o done --name mixed
tasks:
  - id: greet
    prompt: Greet the reader.
    rehearse: hello
  - id: count
    run: cat $CC_NEEDS/greet.txt | wc -l
    needs: greet
  - id: again
    prompt: "There are {{ needs.count.text }} lines; the greeting is {{ needs.greet.status }}."
    rehearse: hello
"""


def tasks(*items: str, options: str = "-o done") -> str:
    """A cell with shell tasks: `id: command`, or a whole item after a `-`."""
    rows = [
        f"  - {item[1:].strip()}" if item.startswith("-") else "  - {{id: {}, run: '{}'}}".format(*item.split(": ", 1)) for item in items
    ]
    return "\n".join([f"%%cc_tasks {options}", "tasks:", *rows]) + "\n"


def mark(answer: Answer) -> dict[str, Any]:
    """What the one output says of the list."""
    (display,) = [display for display in answer.displays if "text/html" in display]
    assert WIDGET_MIME not in display
    return answer.metadata[answer.displays.index(display)]["cc_executor"]


def statuses(kernel: Kernel, name: str = "done") -> str:
    return kernel.value(f"' '.join(t.status.value for t in {name}.tasks.values())").strip("'")


def test_a_list_runs_in_order_and_leaves_one_static_output_with_every_receipt(kernel: Kernel) -> None:
    answer = kernel.run(MIXED, within=60)
    assert answer.status == "ok", answer.traceback
    assert kernel.value("_.status, _.ok") == "('ok', True)"
    said = mark(answer)
    assert said["status"] == "ok"
    assert [receipt["status"] for receipt in said["receipts"]] == ["ok"] * 3
    assert kernel.value("' '.join(done.result(t).receipt.run_id for t in done.tasks)").strip("'").split() == [
        receipt["run_id"] for receipt in said["receipts"]
    ]
    assert kernel.value("done.result('again').folder.joinpath('prompt').read_text().replace(chr(10), '')") == (
        "'There are 5 lines; the greeting is ok.'"
    )
    (display,) = answer.displays
    assert sorted(display) == ["_id", "text/html", "text/plain"]
    assert display["text/plain"].startswith("✓ mixed: ok, 3 of 3 tasks ended well")
    assert "rehearsal" in display["text/plain"]


def test_the_same_list_again_spends_nothing_and_fresh_does_it_anew(kernel: Kernel, tmp_path: Path) -> None:
    cell = tasks("one: echo x >> runs", "two: echo x >> runs")
    first = kernel.run(cell)
    again = kernel.run(cell)
    assert (first.status, again.status) == ("ok", "ok"), again.traceback
    assert "nothing was run and nothing was spent" in again.displays[0]["text/plain"]
    assert mark(again) == mark(first)
    assert len((tmp_path / "runs").read_text().split()) == 2
    assert kernel.run(tasks("one: echo x >> runs", "two: echo x >> runs", options="--fresh")).status == "ok"
    assert len((tmp_path / "runs").read_text().split()) == 4


def test_a_failure_raises_in_one_line_stops_run_all_and_the_rerun_goes_on_there(kernel: Kernel, tmp_path: Path) -> None:
    gate = make_gate(tmp_path)
    cell = tasks("one: cat gate; echo x >> runs", "two: test -e now", "three: echo x >> runs")
    first = kernel.send(cell)
    begun = kernel.wait(first, until=lambda answer: answer.displays)
    second = kernel.send("print('never')")
    kernel.wait_taken()
    gate.write_text("through\n")
    answer = kernel.wait(first, within=60, answer=begun)
    assert (answer.status, answer.ename) == ("error", "TaskListFailed")
    assert answer.evalue.startswith("failed: two did not end well (failed); 1 of 3 tasks ended well (list ")
    assert answer.evalue.endswith("run the same list again: what ended well is not done again.")
    assert answer.traceback == f"TaskListFailed: {answer.evalue}"
    assert kernel.wait(second).status == "aborted"
    assert mark(answer)["status"] == "failed"
    assert statuses(kernel) == "ok failed waiting"
    (tmp_path / "now").touch()
    again = kernel.run(cell, within=60)
    assert again.status == "ok", again.traceback
    assert statuses(kernel) == "ok ok ok"
    assert len((tmp_path / "runs").read_text().split()) == 2
    assert [receipt["status"] for receipt in mark(again)["receipts"]] == ["ok", "failed", "ok", "ok"], "every attempt has its receipt"


def test_skip_leaves_out_what_needs_the_failed_one_and_no_raise_error_returns(kernel: Kernel) -> None:
    cell = tasks("one: exit 3", "- {id: two, run: echo, needs: one}", "three: echo", options="-o done --on-failure skip --no-raise-error")
    answer = kernel.run(cell, within=60)
    assert answer.status == "ok", answer.traceback
    assert statuses(kernel) == "failed skipped ok"
    assert kernel.value("done.tasks['two'].summary") == "'it needs one, which did not end well'"


def test_an_interrupt_stops_the_list_and_keeps_what_there_is(kernel: Kernel, tmp_path: Path) -> None:
    make_gate(tmp_path)
    cell = tasks("one: echo first", "two: echo $$ > pid; cat gate", "three: echo never")
    sent = kernel.send(cell)
    wait_for_pid(tmp_path)
    kernel.interrupt()
    answer = kernel.wait(sent, within=60)
    assert (answer.status, answer.ename) == ("error", "KeyboardInterrupt")
    assert answer.traceback.startswith("KeyboardInterrupt: list ")
    assert living(tmp_path) == []
    assert statuses(kernel) == "ok stopped waiting"
    assert mark(answer)["status"] == "stopped"
    assert [receipt["status"] for receipt in mark(answer)["receipts"]] == ["ok", "cancelled"]
    (tmp_path / "gate").unlink()
    (tmp_path / "gate").write_text("open")
    assert kernel.run(cell, within=60).status == "ok"
    assert statuses(kernel) == "ok ok ok"


def test_inside_capture_and_without_autoawait_it_blocks_and_runs(kernel: Kernel) -> None:
    captured = kernel.run("%%capture out\n" + tasks("one: echo captured"), within=60)
    assert captured.status == "ok", captured.traceback
    assert captured.displays == []
    assert kernel.value("done['one'].strip(), ['text/html' in o.data for o in out.outputs if o.data]") == "('captured', [True])"
    kernel.run("%autoawait off")
    plain = kernel.run(tasks("one: echo plain"), within=60)
    assert plain.status == "ok", plain.traceback
    assert mark(plain)["status"] == "ok"


def test_markdown_is_a_list_too_and_a_dry_run_starts_nothing(kernel: Kernel, tmp_path: Path) -> None:
    cell = "%%cc_tasks --dry-run -o done\n# A plan\n\nTask 1: Write it.\n  with care\nTask 2: Read {{ needs.1.text }}.\n"
    answer = kernel.run(cell)
    assert answer.status == "ok", answer.traceback
    assert answer.displays == []
    assert answer.stream.splitlines()[0] == f"2 tasks in {tmp_path}; a task that fails: stop. Nothing was started."
    assert [line.split() for line in answer.stream.splitlines()[2:4]] == [["1", "1", "agent"], ["2", "2", "agent", "1"]]
    assert kernel.run("done").ename == "NameError"


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ("- run: echo\n- {id: b, prompt: 'Task 1: x'}\n", [["1", "1", "command"], ["2", "b", "agent"]]),
        ("# these\n\n- prompt: x\n", [["1", "1", "agent"]]),
        ("- Task 1: List the tasks: all of them.\n- Task 2: Go on.\n", [["1", "1", "agent"], ["2", "2", "agent"]]),
    ],
)
def test_yaml_and_markdown_are_told_apart(kernel: Kernel, body: str, rows: list[list[str]]) -> None:
    answer = kernel.run(f"%%cc_tasks --dry-run\n{body}")
    assert answer.status == "ok", answer.evalue
    table, hints = answer.stream.splitlines()[2 : 2 + len(rows)], answer.stream.splitlines()[2 + len(rows) :]
    assert [line.split() for line in table] == rows
    assert all(line.startswith("tasks[") for line in hints)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("%%cc_tasks --nonsense\ntasks:\n- x", ["--nonsense", "%%cc_tasks?"]),
        ("%%cc_tasks --on-failure never\ntasks:\n- x", ["--on-failure", "stop, skip, continue"]),
        ("%%cc_tasks -o 1x\ntasks:\n- x", ["1x"]),
        ("%%cc_tasks -o lambda\ntasks:\n- x", ["-o", "lambda"]),
        ("%%cc_tasks --cwd ''\ntasks:\n- x", ["cwd is empty"]),
        ("%%cc_tasks\ntasks:\n- {run: x, cwd: ''}", ["'1'", "cwd is empty"]),
        ("%%cc_tasks --parallel 0\ntasks:\n- x", ["parallel", "greater than or equal to 1"]),
        ("%%cc_tasks --max-cost -2\ntasks:\n- x", ["max_cost", "greater than 0"]),
        ("%%cc_tasks\nnothing here\nat all", ["Task 1:"]),
        ("%%cc_tasks\ntasks:\n  - id: a\n    prompt: x\n    id: b\n", ["line 5", "'id' stands twice"]),
        (
            "%%cc_tasks\ntasks:\n  - {id: a, prompt: '{{ needs.zz.text }}', timeout: -1}\n  - {id: b, run: x, bogus: 1}\n  - {run: x, call: y}\n",
            ["4 things", "line 3", "'zz'", "timeout", "line 4", "bogus", "line 5", "run and call"],
        ),
        ("%%cc_tasks\ntasks:\n  - {id: a, run: x, needs: b}\n  - {id: b, run: x, needs: a}\n", ["circle", "a ← b ← a"]),
    ],
)
def test_bad_input_is_one_clear_message_with_every_place(kernel: Kernel, cell: str, words: list[str], state_folder: Path) -> None:
    answer = kernel.run(cell)
    assert answer.status == "error"
    assert answer.ename in {"InvalidRequest", "InvalidTaskList"}
    assert [word for word in words if word not in answer.evalue] == []
    assert ".py" not in answer.traceback
    assert not (state_folder / "runs").exists() or list((state_folder / "runs").iterdir()) == []


def test_python_shows_the_same_and_calls_what_is_in_the_kernel(kernel: Kernel) -> None:
    kernel.run("from cc_executor import cc_tasks\ndef double(needs):\n    return {'n': 2 * int(needs['one'].text)}")
    answer = kernel.run(
        "done = await cc_tasks([{'id': 'one', 'run': 'echo 21'}, {'id': 'two', 'call': double, 'needs': 'one'}], name='python')", within=60
    )
    assert answer.status == "ok", answer.traceback
    assert mark(answer)["status"] == "ok"
    assert kernel.value("done['two']") == "{'n': 42}"
    failed = kernel.run("await cc_tasks([{'id': 'one', 'call': lambda: 1 / 0}])", within=60)
    assert failed.ename == "TaskListFailed"
    assert "ZeroDivisionError" in failed.displays[0]["text/plain"]


def test_a_group_runs_side_by_side_and_what_a_list_has_made_is_shown_as_text(kernel: Kernel, tmp_path: Path) -> None:
    make_gate(tmp_path)
    cell = tasks(
        "- {id: left, group: pair, run: 'echo through > gate'}",
        "- {id: right, group: pair, run: cat gate}",
        "- {id: bad, run: 'printf \"<b>bold</b>\\\\n\\\\033[31mred\"'}",
    )
    answer = kernel.run(cell, within=60)
    assert answer.status == "ok", answer.traceback
    page = answer.displays[0]["text/html"]
    assert "group pair" in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "<b>bold" not in page
    assert "\x1b" not in json.dumps(answer.displays[0])


def test_a_view_that_fails_costs_the_list_nothing(own_kernel: Kernel) -> None:
    own_kernel.run(
        "from cc_executor.kernel.taskview import TaskListView\n"
        "def fail(self, now=None):\n    raise RuntimeError('no page')\nTaskListView.tick = fail"
    )
    answer = own_kernel.run(tasks("one: echo 1", "two: echo 2"), within=60)
    assert answer.status == "ok", answer.traceback
    assert "no page" in answer.stream
    assert statuses(own_kernel) == "ok ok"


ASKED_AT_THE_END: Final = """
import asyncio
from cc_executor.kernel.taskcell import _ListWatch
from cc_executor.kernel.taskview import TaskListView
said, make_table, transmit = [], _ListWatch._ended, TaskListView._transmit
def ask(**content):
    ended._handle_custom_msg({"run": ended._board.state.task("one").run_id, **content}, [])
def sync(page):
    ask(op="run", content={"op": "sync", "view": page})
def at_the_end(watch, state):
    global ended
    ended = watch._display._view
    ask(op="open", view="v")
    sync("v")
    return make_table(watch, state)
def send(view, content, buffers):
    said.append((content.get("content", {}).get("reset"), b"".join(buffers)))
    transmit(view, content, buffers)
_ListWatch._ended, TaskListView._transmit = at_the_end, send
async def shown(page):
    async with asyncio.timeout(20):
        while not any(reset and page in reset and b"what it wrote" in b"".join(body for _, body in said[number:])
                      for number, (reset, _) in enumerate(said)):
            await asyncio.sleep(0.001)
    return page
"""


def test_a_run_that_is_opened_while_the_list_ends_is_shown_to_every_page_that_asks(kernel: Kernel) -> None:
    kernel.run(ASKED_AT_THE_END)
    answer = kernel.run(tasks("one: echo what it wrote"), within=60)
    assert answer.status == "ok", answer.traceback
    assert kernel.value("await shown('v')") == "'v'"
    # A page that asks in the moment after a frame for another one.
    assert kernel.value("sync('w'); await shown('w'); sync('x'); await shown('x')") == "'x'"
    kernel.run("_ListWatch._ended, TaskListView._transmit = make_table, transmit")


@pytest.mark.parametrize("end", ["killed", "restarted", "told to shut down"])
def test_a_list_whose_kernel_is_gone_goes_on_when_its_cell_is_run_again(own_kernel: Kernel, tmp_path: Path, end: str) -> None:
    make_gate(tmp_path)
    cell = tasks("one: echo x >> runs", "two: echo $$ >> pids; cat gate; echo x >> runs", "three: echo x >> runs")
    own_kernel.send(cell)

    def pids() -> list[str]:
        file = tmp_path / "pids"
        return file.read_text().split() if file.exists() else []

    eventually(pids, within=60, what="the second task runs")
    own_kernel.manager.shutdown_wait_time = 60.0  # a slow one is to end by itself, and not to be killed after some seconds
    if end == "killed":
        os.kill(own_kernel.pid, signal.SIGKILL)
    if end == "told to shut down":
        # Without an interrupt ahead of it, as where that has not got through: the end of the process stops the list.
        own_kernel.client.shutdown(restart=True)
        eventually(lambda: not own_kernel.manager.is_alive(), within=60, what="the kernel ends")
    own_kernel.restart()  # this interrupts first, and so stops the list
    if end != "killed":
        eventually(lambda: not psutil.pid_exists(int(pids()[0])), within=60, what="what it ran ends, though nobody runs the list now")
    own_kernel.run("%load_ext cc_executor")
    sent = own_kernel.send(cell)
    if end != "killed":
        eventually(lambda: len(pids()) == 2, within=60, what="the second task is begun anew")
    with (tmp_path / "gate").open("w") as gate:
        gate.write("open")
    answer = own_kernel.wait(sent, within=60)
    assert answer.status == "ok", answer.traceback
    assert statuses(own_kernel) == "ok ok ok"
    assert len((tmp_path / "runs").read_text().split()) == 3
    assert len(pids()) == (1 if end == "killed" else 2), "a kernel that was killed leaves its run to the next, which adopts it"


def test_a_question_mark_prints_the_options_and_tab_completes_them(kernel: Kernel) -> None:
    (page,) = [payload["data"]["text/plain"] for payload in kernel.run("%%cc_tasks?").payload]
    assert "--on-failure POLICY" in page
    assert "Task 1:" in page
    offered = kernel.run("get_ipython().complete('--f', '%%cc_tasks --f')").value or ""
    assert "--fresh" in offered
    assert "skip" in (kernel.run("get_ipython().complete('s', '%%cc_tasks --on-failure s')").value or "")
