"""Who is told of the runs and lists of a real kernel: settings, options, and a kernel that is restarted before the end."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_executor.errors import InvalidRequest
from cc_executor.kernel.config import CCExecutor
from cc_executor.kernel.notify import notify_of
from kernel.cells import NEWEST_LINE, make_gate, shell_cell
from support.kernel import Kernel
from support.receiver import Receiver, receiving

CANARY = "c4n4ry-a1b2"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_yet(receiver: Receiver) -> None:
    receiver.received.clear()


@pytest.mark.parametrize(
    ("given", "targets", "has_bell"),
    [
        ("command:true", ("command:true",), True),
        (["command:true", "command:false"], ("command:true", "command:false"), True),
        (("command:true",), ("command:true",), True),
        ("none", (), False),
    ],
)
def test_a_function_is_given_one_or_several_to_tell(given: object, targets: tuple[str, ...], *, has_bell: bool) -> None:
    wish = notify_of(CCExecutor(environ={}), Namespace(notify=given, notify_after=None, notify_on=None))
    assert wish is not None
    assert (wish.targets, wish.browser) == (targets, has_bell)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="notify must be a text or a list of texts, not int"):
        notify_of(CCExecutor(environ={}), Namespace(notify=3, notify_after=None, notify_on=None))


@NEWEST_LINE
def test_a_cell_tells_whom_its_line_or_the_settings_name(kernel: Kernel, receiver: Receiver) -> None:
    answer = kernel.run(shell_cell("true", f"--notify {receiver.url('/line')} --notify-after 0"))
    assert answer.status == "ok", answer.traceback
    kernel.run(f"import os; os.environ['TEAM'] = {receiver.url('/settings')!r}")
    kernel.run("%config CCExecutor.notify = ['browser', 'env:TEAM']\n%config CCExecutor.notify_after = 0")
    kernel.run(shell_cell("true", "-o r"))
    kernel.run(shell_cell("true", "--notify none"))
    kernel.run(shell_cell("true", "--notify-on failed,input"))
    kernel.run("%%cc_tasks --name nightly\ntasks:\n- {id: a, run: 'true'}\n- {id: b, run: 'true'}\n")
    receiver.wait(3)
    assert [(each.path, each.json["type"]) for each in receiver.received] == [
        ("/line", "run.done"),
        ("/settings", "run.done"),
        ("/settings", "list.done"),
    ]
    assert kernel.value("r.receipt.run_id") == repr(receiver.received[1].data["run_id"])


@NEWEST_LINE
def test_who_cannot_be_told_is_told_of_in_the_cell_without_the_address(kernel: Kernel, receiver: Receiver) -> None:
    receiver.answers = [404]
    answer = kernel.run(shell_cell("true", f"--notify {receiver.url('/' + CANARY)} --notify-after 0"))
    assert answer.status == "ok", answer.traceback
    [display] = answer.displays
    assert f"http://127.0.0.1:{receiver.port} could not be told: it answered 404" in display["text/html"]
    assert CANARY not in json.dumps(answer.displays)
    refused = kernel.run(shell_cell("true", f"--notify http://example.org/{CANARY}"))
    assert (refused.status, refused.ename) == ("error", "InvalidRequest")
    assert CANARY not in refused.evalue
    kernel.run("%config CCExecutor.notify_on = ['never']")
    assert "notify_on takes done, failed, input" in kernel.run(shell_cell("true")).evalue


@pytest.mark.parametrize("kernel_name", ["ipykernel7"])
def test_a_kernel_that_is_restarted_before_the_end_tells_once(own_kernel: Kernel, receiver: Receiver, tmp_path: Path) -> None:
    gate = make_gate(tmp_path)
    begun = own_kernel.run(shell_cell(f"read x < {gate}", f"--bg -o h --notify {receiver.url()} --notify-after 0"))
    assert begun.status == "ok", begun.traceback
    own_kernel.restart()
    assert own_kernel.run("%load_ext cc_executor").status == "ok"
    cell = own_kernel.send("%cc attach")
    gate.write_text("x\n")
    assert own_kernel.wait(cell).status == "ok"
    own_kernel.run("%cc attach")
    own_kernel.run(shell_cell("true", f"--notify {receiver.url('/last')} --notify-after 0"))
    receiver.wait(2)
    assert [each.path for each in receiver.received] == ["/hook", "/last"]
