"""While runs are awaited in a cell, the kernel answers a page that is loaded anew; beside several of them too, and when the cell has ended, nothing is left."""

from __future__ import annotations

from pathlib import Path

from kernel.cells import WAIT, make_gate, ok, shell_cell, wait_for_pid
from support.kernel import Answer, Kernel

TWO_LISTS = (
    "import asyncio; from cc_executor import cc_tasks\n"
    "both = await asyncio.gather(cc_tasks([{'id': 'short', 'run': 'echo 1'}], name='short'), cc_tasks([{'id': 'long', 'run': 'cat gate'}], name='long'))"
)


def has_one_ended(answer: Answer) -> bool:
    return any(mark["cc_executor"]["status"] == "ok" for mark in answer.metadata)


def test_of_lists_that_are_awaited_together_each_has_its_page_answered_to_its_end(kernel: Kernel, tmp_path: Path) -> None:
    gate = make_gate(tmp_path)
    cell = kernel.send(TWO_LISTS)
    begun = kernel.wait(cell, until=has_one_ended)
    kernel.wait_taken()
    gate.write_text("through\n")
    assert len(ok(kernel.wait(cell, answer=begun)).displays) == 2


def test_a_cell_with_several_lists_that_is_queued_once_more_shows_all_of_them_again(kernel: Kernel, tmp_path: Path) -> None:
    make_gate(tmp_path)
    waits = TWO_LISTS.replace("echo 1", "cat gate; echo 1")
    first = kernel.send(waits, cell="a")
    shown = kernel.wait(first, until=lambda answer: len(answer.displays) == 2)
    again = kernel.send(waits, cell="a")
    live = kernel.wait(again, until=lambda answer: len(answer.displays) == 2)
    assert sorted(map(repr, live.displays)) == sorted(map(repr, shown.displays))
    kernel.interrupt()
    assert kernel.wait(first, answer=shown).status == "error"
    assert kernel.wait(again, answer=live).status == "aborted"


def test_a_page_is_answered_while_a_cell_awaits_a_run_in_the_background(kernel: Kernel, tmp_path: Path) -> None:
    gate = make_gate(tmp_path)
    ok(kernel.run(shell_cell(WAIT, "--bg -o handle")))
    wait_for_pid(tmp_path)
    cell = kernel.send("print('aw' + 'aits'); result = await handle")
    begun = kernel.wait(cell, until="awaits")
    kernel.wait_taken()
    gate.write_text("through\n")
    ok(kernel.wait(cell, answer=begun))
    assert kernel.value("result.status") == "'ok'"


def test_a_kernel_in_which_no_cell_runs_is_not_shown_as_busy(kernel: Kernel, tmp_path: Path) -> None:
    gate = make_gate(tmp_path)
    cell = kernel.send(
        "import asyncio; from cc_executor import cc_tasks\n"
        "task = asyncio.create_task(cc_tasks([{'id': 'long', 'run': 'echo $$ > pid; cat gate'}]))"
    )
    ok(kernel.wait(cell))
    wait_for_pid(tmp_path)
    kernel.wait_taken()
    last = kernel.client.kernel_info()
    states: list[tuple[str, str]] = []
    while (last, "idle") not in states:
        message = kernel.client.get_iopub_msg(timeout=60)
        if message["msg_type"] == "status":
            states.append((message["parent_header"]["msg_id"], message["content"]["execution_state"]))
    assert (cell, "busy") not in states, "it has ended"
    gate.write_text("through\n")
    assert kernel.value("(await task).ok") == "True"
