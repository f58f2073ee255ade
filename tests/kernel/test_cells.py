"""`%%cc_execute` in real kernels of both ipykernel lines, with the real CLI against scripts and with shell commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from cc_executor.model.receipt import RECEIPT_MIME
from kernel.cells import NEWEST_LINE, WAIT, WIDGET_MIME, make_gate, ok, shell_cell
from support.kernel import Kernel
from support.leaks import await_none
from support.looks import eventually

pytestmark = pytest.mark.usefixtures("claude_cli")


@pytest.mark.row("kernels", "cell with the real agent", "one static output with the receipt")
def test_a_cell_runs_the_real_agent_and_leaves_one_static_output_with_the_receipt(kernel: Kernel, tmp_path: Path) -> None:
    answer = kernel.run("%%cc_execute -o r --tools Bash --expect haiku.md --rehearse tour\nWrite a haiku.")
    assert answer.status == "ok", answer.traceback
    assert (tmp_path / "haiku.md").read_text().startswith("The cell waits")
    (display,) = answer.displays
    assert "application/vnd.jupyter.widget-view+json" not in display
    receipt = display[RECEIPT_MIME]
    assert receipt["outcome"]["kind"] == "ok"
    assert receipt["rehearsed"] == "tour"
    assert receipt["standing"] == "verified"
    assert "rehearsal" in display["text/plain"].lower()
    assert answer.metadata[0]["cc_executor"]["digest"] == receipt["digest"]
    assert kernel.value("r.status, r.receipt.run_id") == repr(("ok", receipt["run_id"]))
    assert kernel.value("[p.path for p in r.files]") == repr([str(tmp_path / "haiku.md")])


def test_the_value_of_the_cell_is_the_result(kernel: Kernel) -> None:
    kernel.run(shell_cell("echo hello"))
    assert kernel.value("_.text.strip()") == "'hello'"


def test_an_outcome_other_than_ok_raises_with_a_short_traceback_and_stops_run_all(kernel: Kernel, tmp_path: Path) -> None:
    gate = make_gate(tmp_path)
    first = kernel.send(shell_cell("cat gate; exit 3"))
    begun = kernel.wait(first, until=lambda answer: answer.displays)
    second = kernel.send("print('never')")
    kernel.wait_taken()
    gate.write_text("through\n")
    answer = kernel.wait(first, answer=begun)
    assert (answer.status, answer.ename) == ("error", "CCExecutionError")
    assert answer.evalue.startswith("failed: ")
    assert "cell.py" not in answer.traceback
    assert kernel.wait(second).status == "aborted"


def test_no_raise_error_returns_the_failed_result(kernel: Kernel) -> None:
    answer = kernel.run(shell_cell("exit 3", "--no-raise-error -o r"))
    assert answer.status == "ok"
    assert kernel.value("r.status, r.receipt.exit.code") == "('failed', 3)"


@pytest.mark.row("faults", "interrupt, real kernel", "0 processes of the run alive within 5 s")
@pytest.mark.row("kernels", "Kernel > Interrupt", "the whole tree is gone, the partial result is kept, the kernel lives")
def test_an_interrupt_ends_the_tree_and_keeps_the_partial_result(kernel: Kernel, tmp_path: Path) -> None:
    cell = kernel.send(
        shell_cell("echo started; setsid bash -c 'trap \"\" TERM; echo $$ > pid; while :; do read -t 1 < /dev/zero; done' & wait", "-o r")
    )
    pid_file = tmp_path / "pid"
    eventually(lambda: pid_file.exists() and pid_file.read_text().strip(), within=60, what="the command runs")
    begun = kernel.wait(cell, until=lambda answer: answer.displays)  # before that it is a launch that is interrupted
    kernel.interrupt()
    answer = kernel.wait(cell, within=60, answer=begun)
    assert (answer.status, answer.ename) == ("error", "KeyboardInterrupt")
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    assert kernel.value("r.status, r.text.strip()") == "('cancelled', 'started')"
    assert kernel.value("6 * 7") == "42"


def test_the_prompt_is_sent_byte_for_byte(kernel: Kernel) -> None:
    body = r""">>> {x} $HOME `a` "q" 'q' {{name}} \frac{1}{2} %d ? ! %time $5 naïve 🙂"""
    kernel.run(f"%%cc_execute -o r --rehearse hello\n{body}\n  indented\n\nlast")
    stored = json.loads(
        kernel.value("__import__('json').dumps(__import__('pathlib').Path(r.folder, 'prompt').read_text())")
        .strip("'")
        .encode()
        .decode("unicode_escape")
    )
    assert stored == f"{body}\n  indented\n\nlast"


def test_capture_and_autoawait_off_run_all_the_same(kernel: Kernel) -> None:
    captured = kernel.run("%%capture out\n%%cc_execute --agent shell --shell bash -o r\necho captured")
    assert captured.status == "ok", captured.traceback
    assert captured.displays == []
    assert kernel.value("r.text.strip(), len(out.outputs) > 0") == "('captured', True)"
    kernel.run("%autoawait off")
    answer = kernel.run(shell_cell("echo plain", "-o s"))
    assert answer.status == "ok", answer.traceback
    assert answer.displays[-1][RECEIPT_MIME]["outcome"]["kind"] == "ok"
    assert kernel.value("s.text.strip()") == "'plain'"


TICKS_BESIDE_A_RUN = """
import asyncio, pathlib
async def tick():
    while not pathlib.Path('pid').exists():
        await asyncio.sleep(0.01)
    for _ in range(20):
        await asyncio.sleep(0.01)
    pathlib.Path('ticked').touch()
task = asyncio.ensure_future(tick())
"""


@pytest.mark.row("kernels", "asyncio tasks during a run", "the kernel's loop goes on")
def test_the_loop_goes_on_while_a_cell_runs(kernel: Kernel, tmp_path: Path) -> None:
    gate = make_gate(tmp_path)
    kernel.run(TICKS_BESIDE_A_RUN)
    cell = kernel.send(shell_cell(WAIT))
    eventually((tmp_path / "ticked").exists, within=60, what="the loop goes on, though the cell waits")
    gate.write_text("through\n")
    assert kernel.wait(cell).status == "ok"


def test_background_runs_go_on_without_the_cell_and_are_awaitable(kernel: Kernel, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    started = kernel.run(shell_cell("cat gate", "--bg -o h"))
    assert started.status == "ok", started.traceback
    early = kernel.run("h.text")
    assert early.status == "error"
    assert "has no text yet: `result = await handle` waits for its end" in early.traceback
    assert "has no attribute 'txt'" in kernel.run("h.txt").traceback
    assert kernel.value("hasattr(h, 'text'), hasattr(h, 'pause')") == "(False, True)"
    (tmp_path / "gate").write_text("through\n")
    assert kernel.value("(await h).text.strip()") == "'through'"
    assert kernel.value("h.text.strip(), h.ok, h.receipt.run_id == h.run_id") == "('through', True, True)"


@pytest.mark.parametrize(
    "cell",
    [
        "%%cc_execute --agent shell --shell bash --cwd {}\n" + WAIT,
        "%%cc_tasks\ncwd: {}\nname: again\ntasks:\n  - id: one\n    run: cat gate",
    ],
    ids=["run", "list"],
)
def test_a_cell_that_is_queued_once_more_shows_what_still_runs_in_its_new_outputs(own_kernel: Kernel, tmp_path: Path, cell: str) -> None:
    gate = make_gate(tmp_path)
    cell = cell.format(tmp_path)
    first = own_kernel.send(cell, cell="a")
    shown = own_kernel.wait(first, until=lambda answer: answer.displays)
    (opened,) = (
        message["content"]["data"]["state"] for message in shown.messages if "place" in str(message) and message["msg_type"] == "comm_open"
    )
    assert opened["place"] == ""
    again, other = own_kernel.send(cell, cell="a"), own_kernel.send("print('done')", cell="b")
    live = own_kernel.wait(again, until=lambda answer: answer.displays)
    assert live.displays == shown.displays, "the same view, so that its end replaces both"
    assert live.metadata == shown.metadata

    # A page that is loaded anew fetches the view, and is told where it is shown, for the notebook may not be saved; not where somebody has cleared it.
    output = {mime: live.displays[0][mime] for mime in (WIDGET_MIME, "text/plain")}
    view = output[WIDGET_MIME]["model_id"]
    place = json.loads(fetched_place(own_kernel, view))
    assert place == {"cell": "a", "code": cell, "view": view, "data": output, "metadata": live.metadata[0], "save": True}
    updates = [
        message["content"]["data"].get("state", {}) for message in shown.messages + live.messages if message["msg_type"] == "comm_msg"
    ]
    assert not any("place" in state for state in updates), "a page that is there, and another tab, are told nothing"
    for said in ({"op": "sync", "view": "old"}, {"op": "cleared", "view": "old"}):
        own_kernel.tell(view, {"method": "custom", "content": said})
    assert not fetched_place(own_kernel, view)
    own_kernel.tell(view, {"method": "custom", "content": {"op": "sync", "view": "new"}})
    assert json.loads(fetched_place(own_kernel, view)) == place
    with gate.open("w") as through:
        through.write("x\n")
    assert ok(own_kernel.wait(first, answer=shown)).displays[0]["text/html"]
    if "cc_execute" in cell:
        with gate.open("w") as through:
            through.write("x\n")
        assert ok(own_kernel.wait(again, answer=live)).displays[1][RECEIPT_MIME]["outcome"]["kind"] == "ok"
    assert ok(own_kernel.wait(other)).displays == []
    assert not fetched_place(own_kernel, view), "its end stands there now"


def fetched_place(kernel: Kernel, view: str) -> str:
    """What a page that fetches the model of a view is told of where it is shown."""
    kernel.tell(view, {"method": "request_state"})
    end = time.monotonic() + 60
    while True:
        message = kernel.client.get_iopub_msg(timeout=max(0.1, end - time.monotonic()))
        data = message["content"].get("data", {}) if message["msg_type"] == "comm_msg" else {}
        if "place" in data.get("state", {}):
            return data["state"]["place"]


def test_once_replays_the_sealed_receipt(kernel: Kernel) -> None:
    cell = "%%cc_execute --once -o {} --agent shell --shell bash\ndate +%s%N >> runs; cat runs"
    assert kernel.run(cell.format("a")).status == "ok"
    again = kernel.run(cell.format("b"))
    assert "nothing was spent" in json.dumps(again.displays) + again.stream
    assert kernel.value("a.receipt == b.receipt, len(open('runs').readlines())") == "(True, 1)"


def test_what_awaits_a_background_cell_awaits_it_when_once_shows_it_again_too(kernel: Kernel) -> None:
    cells = (shell_cell("date +%s%N", "--once --bg -o h"), "result = await h")
    for number in (1, 2):
        begun = ok(kernel.run(cells[0]))
        assert len(begun.displays) == 1
        assert begun.value is None, "the cell shows it already"
        ok(kernel.run(cells[1]))
        ok(kernel.run(f"r{number} = result"))
    assert kernel.value("r1.ok, r1.receipt == r2.receipt, h.result.status, h.run_id == r1.receipt.run_id") == "(True, True, 'ok', True)"
    refused = kernel.run("h.cancel()")
    assert "has ended" in refused.evalue
    ok(kernel.run("%%capture out\n" + cells[0]))
    assert kernel.value("(await h).receipt == r1.receipt") == "True"


@NEWEST_LINE
@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("%%cc_execute\n   \n", ["prompt", "empty"]),
        ("%%cc_execute --nonsense\nhi", ["--nonsense"]),
        ("%%cc_execute --timeout -1\nhi", ["timeout", "greater than 0"]),
        ("%%cc_execute --timeout soon\nhi", ["--timeout", "soon"]),
        ("%%cc_execute --cwd /no/such/folder\nhi", ["/no/such/folder", "does not exist"]),
        ("%%cc_execute --cwd ''\nhi", ["cwd is empty"]),
        ("%%cc_execute --vars\nhi {{nobody}} {{no.body}}", ["{{nobody}}", "{{no.body}}"]),
        ("%%cc_execute --rehearse nonsense\nhi", ["nonsense", "hello"]),
        ("%%cc_execute --schema nobody\nhi", ["nobody"]),
        ("%%cc_execute -o 1x\nhi", ["1x"]),
        ("%%cc_execute -o class\nhi", ["-o", "class"]),
        ("%%cc_execute --agent nobody\nhi", ["nobody", "claude"]),
        ("%%cc_execute --cli /no/such/claude\nhi", ["/no/such/claude"]),
        ("%%cc_execute 'unclosed\nhi", ["quote"]),
        ("%%cc_execute\nhi\0there", ["NUL"]),
        ("%cc nonsense", ["nonsense", "list"]),
        ("%cc show ffffffff", ["ffffffff"]),
        ("%cc show 01", ["'01'", "at least 4 characters"]),
        ("%%cc_execute --modle opus\nhello", ["--modle opus", "Did you mean --model?", "%%cc_execute?"]),
        ("%%cc_execute —-agent shell\nhello", ["Did you mean --agent?"]),
        ("%%cc_execute hello\nhello", [": hello. This line holds options alone", "below", "%%cc_execute?"]),
        ("%%cc_execute --add-dir=--\nhello", ["two dashes alone"]),
        ("%%cc_execute -- hello\nhello", ["two dashes alone"]),
        ("%%cc_execute --tools Bash, Write\nhello", [": Write. This line holds options alone", "quotes"]),
        ("%%cc_execute --help\nhello", [": --help. `%%cc_execute?` prints the options"]),  # and not: did you mean --shell?
        ("%%cc_tasks --parralel=2\ntasks: [{run: echo}]", ["--parralel=2", "Did you mean --parallel?", "%%cc_tasks?"]),
    ],
)
def test_bad_input_is_one_clear_sentence(kernel: Kernel, cell: str, words: list[str]) -> None:
    answer = kernel.run(cell)
    assert answer.status == "error", answer.stream
    for word in words:
        assert word in answer.evalue
    assert "\n" not in answer.evalue.strip()
    assert kernel.run("%cc list").stream.startswith("Nothing was run yet")


@NEWEST_LINE
def test_large_prompts_work_and_larger_ones_are_refused_before_anything_starts(kernel: Kernel) -> None:
    kernel.run("ip = get_ipython()\nbody = 'word ' * 200_000")
    assert kernel.run("r = await ip.run_cell_magic('cc_execute_async', '--rehearse hello', body)").status == "ok"
    assert kernel.value("r.status, len(open(r.folder / 'prompt').read())") == "('ok', 1000000)"
    refused = kernel.run("await ip.run_cell_magic('cc_execute_async', '--rehearse hello', 'x' * 100_000_000)", within=100)
    assert refused.status == "error"
    assert "1,000,000 tokens" in refused.evalue
    assert "put the material into a file" in refused.evalue


def test_five_megabytes_stay_small_in_the_notebook_and_whole_in_the_journal(kernel: Kernel) -> None:
    late: list[float] = []
    while not late or (late[-1] > 1 and len(late) < 3):  # once more when the machine had something else to do
        answer = kernel.run(shell_cell("head -c 5000000 /dev/urandom | base64 -w 100 | tee copy", "-o r"))
        assert answer.status == "ok", answer.traceback
        assert len(answer.messages) <= 100
        assert len(json.dumps(answer.displays)) <= 256 * 1024
        assert kernel.value("open(r.folder / 'stdout', 'rb').read() == open('copy', 'rb').read()") == "True"
        shown = max(message["header"]["date"] for message in answer.messages if message["msg_type"] == "update_display_data")
        late.append(shown.timestamp() - float(kernel.value("r.receipt.times.ended.timestamp()")))
    assert late[-1] <= 1, "seconds from the end of the run to its end in the cell"


@pytest.mark.row("kernels", "kernel killed, policy cancel", "no process of the run is left")
def test_killing_the_kernel_ends_an_attached_run(own_kernel: Kernel, tmp_path: Path) -> None:
    own_kernel.send(shell_cell("setsid bash -c 'echo $$ > pid; while :; do read -t 1 < /dev/zero; done'"))
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip(), within=60, what="the command runs")
    os.kill(own_kernel.pid, signal.SIGKILL)
    assert not await_none([tmp_path])


LEFT_IN_THE_SHELL = """
shell, formatters = get_ipython(), get_ipython().display_formatter.formatters.values()
places = [
    list(vars(shell)), shell.input_transformers_post, shell.input_transformers_cleanup, shell.configurables, shell.events.callbacks, shell.custom_exceptions,
    list(shell.magics_manager.registry), *[list(table) for table in shell.magics_manager.magics.values()],
    *[vars(hooks) for hooks in shell.strdispatchers.values()],
    *[list(printers) for each in formatters for printers in (each.type_printers, each.deferred_printers, each.singleton_printers)],
]
print([place for place in map(repr, places) if 'cc_' in place or 'CC' in place])
"""


def test_unloading_and_loading_again_leaves_nothing_twice(kernel: Kernel) -> None:
    before = (
        "len(get_ipython().input_transformers_post), len(get_ipython().configurables), len(get_ipython().events.callbacks['pre_run_cell'])"
    )
    loaded = kernel.value(before)
    kernel.run("%reload_ext cc_executor")
    assert kernel.value(before) == loaded
    kernel.run("%cc lint")
    assert kernel.run(LEFT_IN_THE_SHELL).stream != "[]\n"
    kernel.run("%unload_ext cc_executor")
    assert kernel.run(LEFT_IN_THE_SHELL).stream == "[]\n"


def test_a_taken_cc_is_left_alone(kernel: Kernel) -> None:
    kernel.run("%unload_ext cc_executor\nget_ipython().register_magic_function(lambda line: 'theirs', magic_name='cc')")
    answer = kernel.run("%load_ext cc_executor")
    assert "%cc_list" in answer.stream
    for line in ("", "list", "cancel", "attach x"):  # the last two of ours are awaited
        assert kernel.value(f"%cc {line}") == "'theirs'"
    assert kernel.run("%cc_list").stream.startswith("Nothing was run yet")
    kernel.run("del get_ipython().magics_manager.magics['line']['cc']")


def test_help_prints_the_options_and_tab_completes_them(kernel: Kernel) -> None:
    assert kernel.value("'--stall-timeout SECONDS' in get_ipython().find_magic('cc_execute', 'cell').__doc__") == "True"
    assert "--stall-timeout" in kernel.value("get_ipython().complete('--st', '%%cc_execute --st')[1]")
    assert "ticker" in kernel.value("get_ipython().complete('ti', '%%cc_execute --rehearse ti')[1]")


@pytest.mark.parametrize(
    "fault",
    [
        "import sys; sys.modules['cc_executor.kernel.live'] = None",
        "from cc_executor.kernel import live\ndef broken(*_): raise RuntimeError('no comm')\nlive.WidgetDisplay.apply = broken",
        "from cc_executor.kernel import live\ndef broken(*_): raise RuntimeError('no comm')\nlive.WidgetDisplay.finish = broken",
    ],
    ids=["cannot be made", "fails midway", "fails at the end"],
)
def test_a_view_that_fails_costs_neither_the_run_nor_its_receipt(own_kernel: Kernel, fault: str) -> None:
    own_kernel.run(fault)
    answer = own_kernel.run(shell_cell("echo one; sleep 0.3; echo two", "-o r"))
    assert answer.status == "ok", answer.traceback
    assert answer.stream.count("The live view of run ") == 1
    assert answer.displays[-1][RECEIPT_MIME]["outcome"]["kind"] == "ok"
    assert own_kernel.value("r.text.split()") == "['one', 'two']"


@pytest.mark.row("faults", "the run's folder is removed while somebody waits", "ended, and the caller told")
def test_a_run_whose_folder_is_removed_is_ended_and_said_to_be(own_kernel: Kernel, tmp_path: Path) -> None:
    cell = own_kernel.send(shell_cell("setsid bash -c 'echo $$ > pid; while :; do read -t 1 < /dev/zero; done'"))
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip(), within=60, what="the command runs")
    (folder,) = Path(os.environ["CC_EXECUTOR_STATE"], "runs").iterdir()
    shutil.rmtree(folder)
    answer = own_kernel.wait(cell, within=60)
    assert answer.status == "error"
    assert folder.name in answer.evalue
    assert not await_none([tmp_path])


VIEWS_ALIVE = """
import asyncio, gc
from cc_executor.kernel import live
from ipywidgets.widgets.widget import _instances
live.VIEWS_KEPT = 3
async def views(count):
    for _ in range(count):
        await get_ipython().run_cell_magic('cc_execute_async', '--agent shell', 'echo hello')
    for _ in range(100):  # a view that has ended answers its pages for a moment
        gc.collect()
        if sum(isinstance(each, live.RunView) for each in gc.get_objects()) <= live.VIEWS_KEPT:
            break
        await asyncio.sleep(0.1)
    return sum(isinstance(each, live.RunView) for each in gc.get_objects()), len(_instances)
"""


@pytest.mark.row("kernels", "many cells in one kernel", "the views of the newest runs are kept, and nothing of older ones")
def test_a_kernel_keeps_the_views_of_its_newest_runs_alone(own_kernel: Kernel) -> None:
    assert own_kernel.run(VIEWS_ALIVE).status == "ok"
    before = own_kernel.value("await views(4)")
    assert before.startswith("(3, ")
    assert own_kernel.value("await views(6)") == before
