"""`%%cc_execute` where it stands beside other things: other magics, the user's own loop and signals, settings, interrupts, restarts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from cc_executor.model.receipt import RECEIPT_MIME
from kernel.cells import (
    IMPATIENT,
    REST,
    STUBBORN,
    WAIT,
    WIDGET_MIME,
    living,
    make_gate,
    ok,
    patient,
    shell_cell,
    signals_of,
    wait_for_pid,
)
from support.kernel import Answer, Kernel, running_kernel
from support.leaks import await_none
from support.looks import eventually
from support.runs import run_folders

pytestmark = pytest.mark.usefixtures("claude_cli")


def statics(answer: Answer) -> list[dict[str, Any]]:
    """The receipts of a cell's outputs; every one must be the static end."""
    assert [display for display in answer.displays if WIDGET_MIME in display] == []
    return [display[RECEIPT_MIME] for display in answer.displays]


@pytest.mark.parametrize("first", ["%%cc_execute", "%%cc_execute -o r --model m", "%%cc_tasks"])
def test_a_cell_without_a_body_is_refused_by_the_name_that_was_written(first: str, kernel: Kernel) -> None:
    assert f"{first.split(maxsplit=1)[0]} is a cell magic, but the cell body is empty" in kernel.run(first).stream


# --- other magics -----------------------------------------------------------------------------------------------------


@pytest.mark.row("kernels", "inside %%capture", "the static end is what is captured")
def test_capture_keeps_the_static_end(kernel: Kernel) -> None:
    captured = ok(kernel.run("%%capture out\n" + shell_cell("echo captured", "-o r")))
    assert (captured.displays, captured.stream) == ([], "")
    assert kernel.value("[sorted(o.data)[0] for o in out.outputs], r.text.strip()") == repr(([RECEIPT_MIME], "captured"))
    (shown,) = ok(kernel.run("out.show()")).displays
    assert shown["text/plain"].startswith("captured\n")
    assert "captured" in shown["text/html"]
    ok(kernel.run("%%capture out\n%%time\n%%cc_tasks\ntasks:\n- {id: a, run: echo listed}"))
    (shown,) = ok(kernel.run("out.show()")).displays
    assert "listed" in shown["text/plain"]
    ok(kernel.run("%%capture out\nr = get_ipython().run_cell_magic('cc_execute', '--agent shell', 'echo by code')"))
    assert kernel.value("len(out.outputs), r.text.strip()") == "(1, 'by code')"


@pytest.mark.row("kernels", "nested in %%time", "the prompt stays byte for byte, the time is shown, the receipt is there")
def test_time_is_stacked_over_a_cell(kernel: Kernel) -> None:
    timed = ok(kernel.run("%%time\n%%cc_execute --agent shell --shell bash -o r\ncat <<'END'\n>>> kept as it is\nEND"))
    assert "Wall time" in timed.stream
    assert [receipt["outcome"]["kind"] for receipt in statics(timed)] == ["ok"]
    assert kernel.value("r.text") == "'>>> kept as it is\\n'"


def test_without_autoawait_an_interrupt_ends_the_run_too(kernel: Kernel, tmp_path: Path) -> None:
    make_gate(tmp_path)
    kernel.run("%autoawait off")
    cell = kernel.send(shell_cell(WAIT, "-o r"))
    wait_for_pid(tmp_path)
    begun = kernel.wait(cell, until=lambda answer: answer.displays)  # before that it is a launch that is interrupted
    kernel.interrupt()
    answer = kernel.wait(cell, within=60, answer=begun)
    assert (answer.status, answer.ename) == ("error", "KeyboardInterrupt")
    assert answer.evalue.startswith("run ")
    assert living(tmp_path) == []
    assert kernel.value("r.status, r.text.strip()") == "('cancelled', 'started')"


@pytest.mark.row("kernels", "run by code, gathered, nested in run_cell", "every run has its own output")
def test_code_runs_cells_by_itself(kernel: Kernel) -> None:
    kernel.run("ip = get_ipython()\nline = '--agent shell --shell bash'")
    blocking = ok(kernel.run("r = ip.run_cell_magic('cc_execute', line, 'echo by code')"))
    awaited = ok(kernel.run("s = await ip.run_cell_magic('cc_execute_async', line, 'echo awaited')"))
    nested = ok(kernel.run("ip.run_cell('%%cc_execute --agent shell --shell bash -o t\\necho nested')"))
    both = ok(
        kernel.run("import asyncio\nu, v = await asyncio.gather(*(ip.run_cell_magic('cc_execute_async', line, f'echo {n}') for n in 'uv'))")
    )
    assert [len(statics(answer)) for answer in (blocking, awaited, nested, both)] == [1, 1, 1, 2]
    assert kernel.value("[x.text.strip() for x in (r, s, t, u, v)]") == "['by code', 'awaited', 'nested', 'u', 'v']"


@pytest.mark.row("faults", "interrupt of several runs, real kernel", "all of them end, the kernel lives")
def test_an_interrupt_ends_all_runs_of_a_cell_and_the_kernel_lives(kernel: Kernel, tmp_path: Path) -> None:
    make_gate(tmp_path)
    kernel.run("import asyncio\nip = get_ipython()\nline = '--agent shell --shell bash'")
    script = "'echo $$ > {n}; cat gate'"
    cell = kernel.send(f"await asyncio.gather(*(ip.run_cell_magic('cc_execute_async', line, {script}.replace('{{n}}', n)) for n in 'uv'))")
    eventually(lambda: (tmp_path / "u").exists() and (tmp_path / "v").exists(), within=60, what="both run")
    kernel.interrupt()
    assert kernel.wait(cell, within=60).status == "error"
    assert await_none([tmp_path], budget=5) == []
    assert kernel.value("6 * 7") == "42"
    assert ok(kernel.run(shell_cell("echo next"))).displays


def test_a_body_given_by_code_is_never_taken_for_that_of_the_cell_that_runs(kernel: Kernel, tmp_path: Path) -> None:
    gate = make_gate(tmp_path)
    kernel.run("import asyncio, pathlib\nip = get_ipython()")
    kernel.run(
        "async def other():\n    while not pathlib.Path('pid').exists():\n        await asyncio.sleep(0.01)\n"
        "    return await ip.run_cell_magic('cc_execute_async', '--agent shell --shell bash', 'echo another | tee other')\n"
        "task = asyncio.ensure_future(other())"
    )
    cell = kernel.send(shell_cell(WAIT, "-o r"))
    eventually((tmp_path / "other").exists, within=60, what="another runs while the cell does")
    gate.write_text("through\n")
    ok(kernel.wait(cell))
    assert kernel.value("(await task).text.strip(), r.text.split()") == "('another', ['started', 'through', 'ended'])"


@pytest.mark.row("kernels", "%autoreload 2", "a module that the agent wrote is reloaded for the next cell")
def test_autoreload_loaded_together_reloads_what_an_agent_has_written(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "subject.py").write_text("value = 'before'\n")
    kernel.run("%load_ext autoreload\n%autoreload 2\nimport sys; sys.path.insert(0, ''); sys.dont_write_bytecode = True; import subject")
    assert kernel.value("subject.value") == "'before'"
    statics(ok(kernel.run(shell_cell("echo \"value = 'after it'\" > subject.py"))))
    assert kernel.value("subject.value") == "'after it'"
    statics(ok(kernel.run(shell_cell("echo again"))))
    kernel.run("%autoreload off\n%unload_ext autoreload\nsys.path.remove(''); del sys.modules['subject']; sys.dont_write_bytecode = False")


def test_variables_are_filled_in_only_when_asked(kernel: Kernel) -> None:
    kernel.run("word, where = 'filled', __import__('pathlib').Path.cwd()")
    ok(kernel.run("%%cc_execute --agent shell --shell bash --vars --cwd {{where}} -o r\necho {{word}} {{ where.name }} '$word' {word}"))
    ok(kernel.run("%%cc_execute --agent shell --shell bash -o s\necho {{word}} {word} '$word'"))
    assert kernel.value("r.text.split() == ['filled', where.name, '$word', '{word}']") == "True"
    assert kernel.value("s.text.strip()") == "'{{word}} {word} $word'"


# --- neighbours -------------------------------------------------------------------------------------------------------

NEIGHBOURS: Final = """
import asyncio, ipywidgets
slider, out, done = ipywidgets.IntSlider(), ipywidgets.Output(), asyncio.Event()
slider.observe(lambda change: pathlib.Path('size').write_text(str(change['new'])), 'value')
async def neighbour():
    while not done.is_set():
        out.append_stdout('o')
        print('n', end='')
        await asyncio.sleep(0.02)
import pathlib
task = asyncio.ensure_future(neighbour())
slider.comm.comm_id
"""


@pytest.mark.row(
    "kernels", "asyncio tasks and ipywidgets in neighbouring cells", "they go on during the run and write into their own outputs"
)
def test_neighbours_go_on_and_keep_their_outputs(kernel: Kernel, tmp_path: Path) -> None:
    gate = make_gate(tmp_path)
    slider = ok(kernel.run(NEIGHBOURS)).value
    assert slider is not None
    first = kernel.send(shell_cell(WAIT, "-o r"))
    second = kernel.send(shell_cell("echo second", "-o s"))
    wait_for_pid(tmp_path)
    kernel.tell(slider.strip("'"), {"method": "update", "state": {"value": 7}})
    eventually((tmp_path / "size").exists, within=60, what="the slider of another cell answers during the run")
    gate.write_text("through\n")
    answers = [ok(kernel.wait(cell)) for cell in (first, second)]
    kernel.run("done.set(); await task")
    assert [(len(statics(answer)), answer.stream) for answer in answers] == [(1, ""), (1, "")]
    assert kernel.value("[x.status for x in (r, s)]") == "['ok', 'ok']"
    assert kernel.value("set(''.join(o['text'] for o in out.outputs))") == "{'o'}"
    assert (tmp_path / "size").read_text() == "7"


@pytest.mark.row("kernels", "cell run again while its --bg run lives", "two runs, each with its own end")
def test_a_cell_that_is_run_again_while_its_background_run_lives_has_two_runs(kernel: Kernel, tmp_path: Path) -> None:
    gate = make_gate(tmp_path)
    cell = shell_cell("echo $$ >> pids; cat gate", "--bg -o h")
    ok(kernel.run(cell))
    kernel.run("first = h")
    ok(kernel.run(cell))
    pids = tmp_path / "pids"
    eventually(lambda: pids.exists() and len(pids.read_text().split()) == 2, within=60, what="both run")
    assert kernel.value("first.run_id != h.run_id, first.result, h.result") == "(True, None, None)"
    ok(kernel.run("first.cancel()\nawait first"))  # both read the same gate
    gate.write_text("through\n")
    assert kernel.value("(await first).status, (await h).text.strip()") == "('cancelled', 'through')"


def test_a_background_run_ends_in_its_own_output(kernel: Kernel, tmp_path: Path) -> None:
    gate = make_gate(tmp_path)
    begun = ok(kernel.run(shell_cell("cat gate", "--bg -o h")))
    (display,) = begun.displays
    assert begun.value is None
    gate.write_text("through\n")
    ended = kernel.wait(kernel.send("await h"), until=lambda answer: any(m["msg_type"] == "update_display_data" for m in answer.messages))
    (update,) = [message["content"] for message in ended.messages if message["msg_type"] == "update_display_data"][-1:]
    assert update["transient"]["display_id"] == display["_id"]
    assert update["data"][RECEIPT_MIME]["outcome"]["kind"] == "ok"


# --- interrupts -------------------------------------------------------------------------------------------------------


@pytest.fixture
def patient_kernel(kernel: Kernel, tmp_path: Path) -> Iterator[Kernel]:
    """A kernel whose runs get no second signal because the machine is slow."""
    ok(kernel.run(patient(tmp_path)))
    yield kernel
    ok(kernel.run(IMPATIENT))


@pytest.mark.row("faults", "interrupt of what ignores signals, real kernel", "three of them end it at once")
def test_three_interrupts_end_what_ignores_signals_at_once(patient_kernel: Kernel, tmp_path: Path, state_folder: Path) -> None:
    kernel = patient_kernel
    make_gate(tmp_path)
    cell = kernel.send(shell_cell(f"echo {'x' * 20}; {STUBBORN}", "-o r"))
    wait_for_pid(tmp_path)
    shown = kernel.wait(cell, until=lambda answer: answer.displays)  # before that it is a launch that is interrupted
    kernel.interrupt()
    eventually((tmp_path / "trapped").exists, within=60, what="the first interrupt has come to the script")
    kernel.interrupt()
    kernel.interrupt()
    answer = kernel.wait(cell, within=60, answer=shown)
    assert signals_of(run_folders(state_folder)[-1]) == ["SIGINT", "SIGKILL"], "the ladder was walked down to its end"
    assert (answer.status, answer.ename) == ("error", "KeyboardInterrupt")
    assert answer.traceback == f"KeyboardInterrupt: {answer.evalue}"
    assert living(tmp_path) == []
    assert kernel.value("r.status, r.receipt.exit.signal") == "('cancelled', 'SIGKILL')"
    assert ok(kernel.run(shell_cell("echo next"))).displays
    cell = kernel.send("import time; print('asleep'); time.sleep(60)")
    kernel.wait(cell, until="asleep")
    kernel.interrupt()
    assert kernel.wait(cell, within=60).ename == "KeyboardInterrupt"


# Not ready to be asked for its version until somebody writes into the pipe.
SLOW_CLAUDE: Final = "#!/bin/sh\ncase $1 in --version) : > asked; cat answer;; *) exec sleep 1000;; esac\n"


@pytest.mark.row("faults", "interrupt during the launch, real kernel", "nothing is left")
@pytest.mark.parametrize("option", ["", "--bg"])
def test_an_interrupt_while_the_run_is_being_launched_leaves_nothing(kernel: Kernel, tmp_path: Path, option: str) -> None:
    cli = tmp_path / "claude"
    cli.write_text(SLOW_CLAUDE.replace("asked", str(tmp_path / "asked")).replace("answer", str(tmp_path / "answer")))
    cli.chmod(0o700)
    os.mkfifo(tmp_path / "answer")
    cell = kernel.send(f"%%cc_execute --cli {cli} -o r {option}\nhello")
    eventually((tmp_path / "asked").exists, within=60, what="the launch has begun")
    kernel.interrupt()
    (tmp_path / "answer").write_text("2.1.329 (Claude Code)\n")
    answer = kernel.wait(cell, within=60)
    assert (answer.status, answer.ename) == ("error", "KeyboardInterrupt")
    assert await_none([tmp_path], budget=5) == []
    assert kernel.value("'r' in globals()") == "False"
    assert "running" not in json.dumps(kernel.run("%cc list").displays)


@pytest.mark.row("faults", "interrupt while watching a background run, real kernel", "the run goes on and can be watched again")
def test_an_interrupt_of_attach_leaves_the_run_alive(kernel: Kernel, tmp_path: Path) -> None:
    gate = make_gate(tmp_path)
    ok(kernel.run(shell_cell(WAIT, "--bg -o h")))
    pid = wait_for_pid(tmp_path)
    cell = kernel.send("%cc attach")
    begun = kernel.wait(cell, until=lambda answer: answer.displays)
    kernel.interrupt()
    answer = kernel.wait(cell, within=60, answer=begun)
    assert (answer.status, answer.ename) == ("error", "KeyboardInterrupt")
    assert answer.evalue.endswith("goes on")
    (left,) = answer.displays
    assert WIDGET_MIME not in left
    assert "watches it again" in left["text/plain"]
    os.kill(pid, 0)
    again = kernel.send("%cc attach")
    begun = kernel.wait(again, until=lambda answer: answer.displays)
    gate.write_text("through\n")
    shown = ok(kernel.wait(again, answer=begun))
    assert [receipt["outcome"]["kind"] for receipt in statics(shown)] == ["ok"]
    assert kernel.value("(await h).text.split()") == "['started', 'through', 'ended']"


@pytest.mark.row("faults", "interrupt while watching a background run, real kernel", "the run goes on and can be watched again")
def test_an_interrupt_of_a_wait_for_a_background_run_leaves_it_alive(kernel: Kernel, tmp_path: Path) -> None:
    gate = make_gate(tmp_path)
    ok(kernel.run(shell_cell(WAIT, "--bg -o h")))
    wait_for_pid(tmp_path)
    # Not before the cell waits: what comes earlier is an interrupt of other code.
    cell = kernel.send("import asyncio\nasyncio.get_running_loop().call_soon(print, 'waiting')\nawait h")
    kernel.wait(cell, until="waiting")
    kernel.interrupt()
    answer = kernel.wait(cell, within=60)
    assert (answer.status, answer.ename) == ("error", "KeyboardInterrupt")
    gate.write_text("through\n")
    assert kernel.value("(await h).status") == "'ok'"


TIDY: Final = f"trap 'sleep 0.3; : > tidied; exit' INT; : > ready; while :; do {REST}; done"
# The time is over when the script is ready, however long that took.
SCOPED: Final = """
import asyncio, anyio, os
async def end_when_ready():
    while not os.path.exists('ready'):
        await asyncio.sleep(0.01)
    {over}
{scope} as scope:
    ending = asyncio.ensure_future(end_when_ready())
    await get_ipython().run_cell_magic('cc_execute_async', '--agent shell --shell bash', {body!r})
"""


@pytest.mark.parametrize(
    ("scope", "over"),
    [("async with asyncio.timeout(60)", "scope.reschedule(0.0)"), ("with anyio.fail_after(60)", "scope.deadline = 0.0")],
    ids=["asyncio", "anyio"],
)
def test_a_timeout_around_a_cell_lets_its_run_tidy_up_and_stays_a_timeout(
    patient_kernel: Kernel, tmp_path: Path, scope: str, over: str
) -> None:
    make_gate(tmp_path)
    kernel = patient_kernel
    answer = kernel.run(SCOPED.format(scope=scope, over=over, body=TIDY), within=60)
    assert (answer.status, answer.ename) == ("error", "TimeoutError")
    assert await_none([tmp_path], budget=5) == []
    assert (tmp_path / "tidied").exists(), "the run was killed without its grace"
    assert kernel.value("6 * 7") == "42"


# --- another kernel ---------------------------------------------------------------------------------------------------


@pytest.mark.row("kernels", "kernel restarted, --bg with policy continue", "the new kernel shows every line, in order, and the end")
def test_a_background_run_outlives_a_restart_and_is_shown_whole_by_the_new_kernel(own_kernel: Kernel, tmp_path: Path) -> None:
    gate = make_gate(tmp_path)
    script = "for n in $(seq 1 300); do echo line $n; done; cat gate; for n in $(seq 301 600); do echo line $n; done"
    ok(own_kernel.run(shell_cell(f"echo $$ > pid; {script}", "--bg")))
    pid = wait_for_pid(tmp_path)
    own_kernel.restart()
    os.kill(pid, 0)
    ok(own_kernel.run("%load_ext cc_executor\n%config CCExecutor.view = 'text'"))
    cell = own_kernel.send("%cc attach")
    half = own_kernel.wait(cell, until="line 300\n")
    gate.write_text("through\n")
    whole = ok(own_kernel.wait(cell, answer=half))
    assert [int(number) for number in re.findall(r"^line (\d+)$", whole.stream, re.MULTILINE)] == list(range(1, 601))
    assert [receipt["outcome"]["kind"] for receipt in statics(whole)] == ["ok"]


SCRIPT: Final = """
from cc_executor import cc_execute_sync
result = cc_execute_sync("echo from a script", agent="shell")
print(result.status, result.text.strip())
"""


@pytest.mark.row("kernels", "%run of a script", "it waits, an interrupt ends its run, and no queued cell is lost")
def test_a_script_run_by_the_run_magic_waits_and_no_queued_cell_is_lost(own_kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    cells = [own_kernel.send(code) for code in ("%run script.py", shell_cell("echo between"), "%run script.py", "print('last')")]
    answers = [ok(own_kernel.wait(cell, within=60)) for cell in cells]
    assert [answer.stream for answer in answers] == ["ok from a script\n", "", "ok from a script\n", "last\n"]
    make_gate(tmp_path)
    cell = own_kernel.send(
        "from cc_executor import cc_execute_sync\ncc_execute_sync('echo $$ > pid; cat gate', agent='shell', shell='bash')"
    )
    wait_for_pid(tmp_path)
    own_kernel.interrupt()
    assert own_kernel.wait(cell, within=60).ename == "KeyboardInterrupt"
    assert await_none([tmp_path], budget=5) == []


@pytest.mark.row("kernels", "nest_asyncio applied by somebody", "said once; cells, buttons and interrupts work")
def test_where_somebody_has_applied_nest_asyncio_it_is_told_once_and_everything_works(own_kernel: Kernel, tmp_path: Path) -> None:
    kernel = own_kernel
    gate = make_gate(tmp_path)
    if breaks := kernel.value("__import__('sys').version_info >= (3, 14)") == "True":  # there the one that still works has another name
        kernel.run("import nest_asyncio2; nest_asyncio2.apply()\nimport ipykernel")
    else:
        kernel.run("import nest_asyncio; nest_asyncio.apply()\nimport ipykernel")
    is_7 = kernel.value("ipykernel.version_info[0] >= 7") == "True" and not breaks
    queued = [kernel.send(code) for code in (shell_cell("echo one"), shell_cell("echo two"), "print('three')")]
    one, two, three = (ok(kernel.wait(cell, within=60)) for cell in queued)
    assert (len(one.stream.splitlines()), "nest_asyncio is applied in this kernel" in one.stream) == ((1, True) if is_7 else (0, False))
    assert (two.stream, three.stream) == ("", "three\n")
    assert [len(statics(answer)) for answer in (one, two)] == [1, 1]

    cell = kernel.send(shell_cell(WAIT, "-o r --no-raise-error"))
    begun = kernel.wait(cell, until=lambda answer: answer.displays)
    wait_for_pid(tmp_path)
    view = begun.displays[0][WIDGET_MIME]["model_id"]
    kernel.tell(view, {"method": "custom", "content": {"op": "command", "command": "cancel"}})
    ok(kernel.wait(cell, within=60, answer=begun))
    assert kernel.value("r.status") == "'cancelled'"

    (tmp_path / "pid").unlink()
    cell = kernel.send(shell_cell(WAIT))
    begun = kernel.wait(cell, until=lambda answer: answer.displays)  # before that it is a launch that is interrupted
    wait_for_pid(tmp_path)
    kernel.interrupt()
    assert kernel.wait(cell, within=60, answer=begun).ename == "KeyboardInterrupt"
    assert living(tmp_path) == []

    ok(kernel.run("%%capture out\n" + shell_cell("echo captured", "-o s")))
    ok(kernel.run("from cc_executor import cc_execute_sync\nt = cc_execute_sync('echo blocking', agent='shell')"))
    assert kernel.value("s.text.strip(), t.text.strip()") == "('captured', 'blocking')"
    assert gate.exists()


def test_where_nest_asyncio_has_broken_asyncio_a_cell_says_so_and_starts_nothing(own_kernel: Kernel, state_folder: Path) -> None:
    """On Python 3.14 and later, under which it leaves no task known; before, such a cell runs."""
    kernel = own_kernel
    kernel.run("import asyncio, sys\nfrom cc_executor import cc_execute, cc_execute_sync")
    breaks = kernel.value("sys.version_info >= (3, 14)") == "True"
    kernel.run("asyncio._nest_patched = True")  # the mark that nest-asyncio leaves
    for code in (shell_cell("true"), "await cc_execute('true', agent='shell')", "cc_execute_sync('true', agent='shell')"):
        answer = kernel.run(code)
        assert (answer.ename, "nest_asyncio2" in answer.evalue) == (("InvalidRequest", True) if breaks else ("", False)), code
    assert len(run_folders(state_folder)) == (0 if breaks else 3)


# --- settings and help ------------------------------------------------------------------------------------------------


def test_config_shows_and_sets(kernel: Kernel) -> None:
    shown = ok(kernel.run("%config CCExecutor")).stream
    words = "CCExecutor.stall_timeout=<Float> Seconds without a sign of life; none: no limit. Unless it is set, a command has none. Current: 600.0"
    assert words in " ".join(shown.split())
    kernel.run("%config CCExecutor.agent = 'shell'\n%config CCExecutor.raise_error = False\n%config CCExecutor.timeout = 33")
    ok(kernel.run("%%cc_execute -o r --shell bash\nexit 3"))
    assert kernel.value("r.status, r.receipt.agent, 'limits' in open(r.folder / 'request.json').read()") == "('failed', 'shell', True)"
    assert kernel.value("__import__('json').load(open(r.folder / 'request.json'))['limits']['wall']") == "33.0"
    refused = kernel.run("%config CCExecutor.timeout = 'soon'")
    assert "The 'timeout' trait of a CCExecutor instance expected a float, not the str 'soon'." in refused.stream
    assert kernel.value("next(c.timeout for c in get_ipython().configurables if type(c).__name__ == 'CCExecutor')") == "33.0"
    again = kernel.run("%reload_ext cc_executor")  # IPython has kept the value all the same
    assert again.traceback.startswith("InvalidRequest: A setting in a configuration file or by %config does not fit: The 'timeout' trait")
    kernel.run("%config CCExecutor.timeout = 44")
    ok(kernel.run("%reload_ext cc_executor"))


REGISTERED: Final = """(
    'cc_execute' in get_ipython().magics_manager.magics['cell'],
    [name for name in get_ipython().magics_manager.magics['line'] if name.startswith('cc')],
    [hook.__name__ for hook in get_ipython().input_transformers_post if hook.__module__.startswith('cc_executor')],
    [type(item).__name__ for item in get_ipython().configurables if type(item).__module__.startswith('cc_executor')],
    [hook for hook in get_ipython().events.callbacks['pre_run_cell'] if hook.__module__.startswith('cc_executor')],
)"""


def test_the_environment_gives_defaults_and_a_bad_value_is_told_in_one_sentence(kernel: Kernel) -> None:
    kernel.run("%unload_ext cc_executor\nimport os")
    for name, value in (("TIMEOUT", "soon"), ("ON_KERNEL_EXIT", "maybe"), ("RAISE_ERROR", "perhaps"), ("MAX_TURNS", "1.5")):
        kernel.run(f"os.environ['CC_EXECUTOR_{name}'] = {value!r}")
        refused = kernel.run("%load_ext cc_executor")
        assert (refused.status, refused.ename) == ("error", "InvalidRequest")
        assert f"CC_EXECUTOR_{name} is {value!r}" in refused.evalue
        assert refused.traceback == f"InvalidRequest: {refused.evalue}"
        assert kernel.value(REGISTERED) == "(False, [], [], [], [])"
        kernel.run(f"del os.environ['CC_EXECUTOR_{name}']")
    kernel.run(
        "os.environ |= {'CC_EXECUTOR_TIMEOUT': '12.5', 'CC_EXECUTOR_AGENT': 'shell', 'CC_EXECUTOR_ENV': 'ONE, TWO', 'ONE': '1', 'TWO': '2'}"
    )
    ok(kernel.run("%load_ext cc_executor"))
    ok(kernel.run("%%cc_execute -o r --shell bash\necho $ONE$TWO"))
    assert kernel.value("r.text.strip(), __import__('json').load(open(r.folder / 'request.json'))['limits']['wall']") == "('12', 12.5)"


def test_a_question_mark_prints_the_options(kernel: Kernel) -> None:
    for question in ("%%cc_execute?", "%cc?", "%cc_attach?"):
        (page,) = ok(kernel.run(question)).payload
        assert page["source"] == "page"
    (page,) = kernel.run("%%cc_execute?").payload
    text = page["data"]["text/plain"]
    for words in ("--stall-timeout SECONDS", "--rehearse SCRIPT", "-o, --out NAME", "%config CCExecutor", "what the agent should do"):
        assert words in text


def test_tab_completes_options_values_verbs_and_runs(kernel: Kernel) -> None:
    ok(kernel.run(shell_cell("echo one", "-o r")))
    run_id = kernel.value("r.receipt.run_id").strip("'")
    assert "--stall-timeout" in kernel.completions("%%cc_execute --st")
    assert {"claude", "shell"} <= set(kernel.completions("%%cc_execute --agent "))
    assert kernel.completions("%%cc_execute --rehearse tou") == ["tour"]
    assert {"attach", "doctor"} <= set(kernel.completions("%cc "))
    assert kernel.completions("%cc rec") == ["receipt"]
    assert kernel.completions(f"%cc show {run_id[:8]}") == [run_id]
    assert kernel.completions(f"%cc_show {run_id[:8]}") == [run_id]
    assert "%%cc_execute" in kernel.completions("%%cc_ex")


# --- what loading costs -----------------------------------------------------------------------------------------------

LOADING: Final = """
import os, statistics, sys, threading, time
def forget():
    get_ipython().extension_manager.unload_extension('cc_executor')
    for name in [name for name in sys.modules if name.partition('.')[0] == 'cc_executor']:
        del sys.modules[name]
def cost(work):
    before = time.process_time()
    work()
    return time.process_time() - before
DEEDS = ('os.', 'subprocess.', 'socket.', '_thread.start', 'shutil.', 'sqlite3.', 'tempfile.', 'pty.', 'webbrowser.')
LOOKS = ('os.listdir', 'os.scandir', 'os.walk', 'os.fwalk')
def watch(event, arguments, me=threading.get_ident()):
    if watching and threading.get_ident() == me:
        if event.startswith(DEEDS) and event not in LOOKS:
            done.append((event, str(arguments)))
        elif event == 'open' and arguments[2] is not None and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            done.append((event, str(arguments)))
watching, done = False, []
sys.addaudithook(watch)
load = lambda: get_ipython().extension_manager.load_extension('cc_executor')
"""


@pytest.mark.row(
    "threats", "%load_ext", "starts no process, opens no port, resumes nothing, whatever the notebook or the state folder says"
)
@pytest.mark.row("kernels", "%load_ext", "a share of what pydantic takes, no file, no thread, no process")
def test_loading_is_cheap_and_leaves_no_trace(kernel_name: str, kernelspecs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # what Python itself would keep is not the extension's
    with running_kernel(kernel_name) as kernel:
        ok(kernel.run(LOADING))
        ok(kernel.run("%who"))  # the first line magic loads what all of them need
        assert kernel.value("get_ipython().extension_manager.loaded & {'cc_executor'}, 'pydantic' in sys.modules") == "(set(), False)"
        ok(
            kernel.run(
                "known, threads = set(sys.modules), threading.active_count()\nwatching = True\nload()\nwatching = False\nnew = set(sys.modules) - known"
            )
        )
        assert kernel.value("done, threading.active_count() - threads") == "([], 0)"
        assert int(kernel.value("len(new)")) <= 15, kernel.value("sorted(new)")
        heavy = "{'pydantic', 'pydantic_core', 'anyio', 'anywidget', 'msgspec', 'nh3', 'typer', 'nest_asyncio', 'markdown_it', 'sqlite3', 'h11'}"
        assert kernel.value(f"new & {heavy}") == "set()"
        kernel.run("costs = []\nfor _ in range(7):\n    forget()\n    costs.append(cost(load))")
        # No time is promised here, only a share: pydantic is what the first run loads.
        kernel.run("reference = cost(lambda: __import__('pydantic').BaseModel)")
        assert kernel.value("statistics.median(costs) < reference / 4") == "True", kernel.value("(costs, reference)")
    assert list(tmp_path.iterdir()) == []


def test_a_plain_run_loads_nothing_for_those_who_ask_for_more(own_kernel: Kernel) -> None:
    ok(own_kernel.run("%%cc_execute --agent shell\ntrue"))
    others = {
        "policy.lint", "policy.rules", "policy.tokens", "policy.retry", "policy.budget", "rehearsal.scripts", "runtime.login", "runtime.verification",
        "kernel.countdown", "kernel.taskcell", "kernel.commands", "store.notebook", "tasks", "model.tasklist",
    }  # fmt: skip
    loaded = own_kernel.value("[name for name in __import__('sys').modules if name.startswith('cc_executor')]")
    assert {name for name in others if f"'cc_executor.{name}'" in loaded} == set()
    assert "'cc_executor.runtime.seal'" in loaded


# --- the line of %cc --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ['"{}"', "'{}'", "{}", "$PLACE/a b", '"$PLACE/a b"', "a b", '"a b"', "a\\ b"])
def test_a_folder_with_a_space_is_named_in_quotes_or_without(written: str, kernel: Kernel, tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    kernel.run(f"import os; os.environ['PLACE'] = {str(tmp_path)!r}; os.chdir({str(tmp_path)!r})")
    name = written.format(folder)
    assert kernel.run(f"%cc trust {name}").stream.startswith(f"Trusted: {folder}. ")
    assert kernel.run(f"%cc untrust {name}").stream == f"Not trusted any more: {folder}.\n"


def test_the_lines_of_cc_are_split_as_in_a_terminal(kernel: Kernel, tmp_path: Path) -> None:
    (odd := tmp_path / "Bob's things").mkdir()
    assert kernel.run(f"%cc trust {odd}").stream.startswith(f"Trusted: {odd}. ")
    ok(kernel.run(shell_cell("true", "-o r")))
    run_id = str(kernel.value("r.receipt.run_id")).strip("'")
    assert ok(kernel.run(f'%cc receipt "{run_id}"')).value
    assert "Written: " in kernel.run(f"%cc report '{run_id}' \"{tmp_path}/a report.html\"").stream
    assert (tmp_path / "a report.html").is_file()
    assert kernel.run(f'%cc undo "{run_id}').evalue.startswith(
        "The line cannot be split into words (no closing quotation). Close the quotes."
    )
