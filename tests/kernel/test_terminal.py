"""Plain `ipython` in a terminal, typed into by a program: with prompt_toolkit, and with the simple prompt."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pexpect
import pytest

from kernel.cells import STUBBORN, WAIT, living, make_gate, patient, shell_cell, signals_of
from support.looks import eventually
from support.runs import run_folders

START_BUDGET: Final = 60.0
BUDGET: Final = 60.0
MAGIC: Final = "get_ipython().run_cell_magic"
ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")


class Terminal:
    """IPython behind a pty. `simple`: lines as they are typed, no redrawing."""

    def __init__(self, folder: Path, *, simple: bool) -> None:
        options = ["--no-banner", "--no-confirm-exit", "--colors=NoColor", "--HistoryManager.enabled=False"]
        self.simple = simple
        self.number = 1
        self.child = pexpect.spawn(
            sys.executable,
            ["-m", "IPython", *options, *(["--simple-prompt"] if simple else [])],
            cwd=str(folder),
            # CPR: prompt_toolkit asks where the cursor is, and nobody here answers.
            env=os.environ | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
            encoding="utf-8",
            dimensions=(50, 200),
            timeout=BUDGET,
        )

    def ready(self, *, within: float = BUDGET) -> str:
        """Wait for the next prompt; what was written before it."""
        self.child.expect(rf"In \[{self.number}\]:", timeout=within)
        self.number += 1
        return ESCAPES.sub("", self.child.before or "")

    def enter(self, text: str) -> None:
        """Paste a cell and have it run."""
        if self.simple:
            self.child.send("".join(f"{line}\r" for line in text.split("\n")))
            if text.startswith("%%"):
                self.child.send("\r\r")  # an empty line ends such a cell
        else:
            self.child.send(f"\x1b[200~{text}\x1b[201~")  # bracketed paste
            self.child.send("\x1b\r" if "\n" in text else "\r")  # Meta+Enter runs it as it stands

    def run(self, text: str) -> str:
        """Run a cell to its end; what it wrote."""
        self.enter(text)
        return self.ready()

    def see(self, text: str, *, within: float = BUDGET) -> None:
        """Wait until something is written."""
        self.child.expect_exact(text, timeout=within)

    def close(self) -> None:
        """End it, however long that takes it: pexpect itself gives up a tenth of a second after its last signal."""
        if self.child.isalive():
            self.child.kill(signal.SIGKILL)
            self.child.wait()
        self.child.close()


@pytest.fixture(params=["prompt-toolkit", "simple-prompt"])
def terminal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path, simple=request.param == "simple-prompt")
    try:
        terminal.ready(within=START_BUDGET)
        terminal.run("%load_ext cc_executor")
        yield terminal
    finally:
        terminal.close()


@pytest.mark.row("kernels", "IPython in a terminal", "lines appear as they come; Ctrl-C ends the run")
def test_lines_appear_while_the_run_goes_on_and_ctrl_c_ends_it(terminal: Terminal, tmp_path: Path, state_folder: Path) -> None:
    gate = make_gate(tmp_path)
    terminal.enter(shell_cell(WAIT, "-o first"))
    terminal.see("started")
    gate.write_text("through\n")  # only now can the last line be written
    terminal.see("ended")
    assert "ok · " in terminal.ready()
    assert "'ok'" in terminal.run("first.status")

    terminal.enter(shell_cell(WAIT, "-o second"))
    terminal.see("started")
    assert living(tmp_path)
    terminal.child.sendintr()
    written = terminal.ready(within=20)
    assert living(tmp_path) == []
    assert "cancelled" in written
    assert "KeyboardInterrupt: run " in written
    assert "Traceback" not in written
    assert "asyncio" not in written
    assert "'cancelled', 'started'" in terminal.run("second.status, second.text.strip()")

    # Twice: what ignores Ctrl-C is ended at once.
    terminal.run(patient(tmp_path))
    terminal.enter(shell_cell(STUBBORN, "-o third"))
    terminal.see("started")
    terminal.child.sendintr()
    terminal.see("trapped")
    terminal.child.sendintr()
    terminal.ready(within=20)
    assert signals_of(run_folders(state_folder)[-1]) == ["SIGINT", "SIGKILL"], "the second Ctrl-C does not wait for the whole ladder"
    assert living(tmp_path) == []
    assert "'cancelled', 'SIGKILL'" in terminal.run("third.status, third.receipt.exit.signal")

    # What is not a run is interrupted as ever.
    terminal.enter("import time; print('as' 'leep'); time.sleep(60)")
    terminal.see("asleep")
    terminal.child.sendintr()
    assert "KeyboardInterrupt" in terminal.ready(within=20)
    assert "42" in terminal.run("6 * 7")
    assert "once more" in terminal.run(shell_cell("echo once more"))


def test_without_autoawait_the_same(terminal: Terminal, tmp_path: Path) -> None:
    gate = make_gate(tmp_path)
    terminal.run("%autoawait off")
    terminal.enter(shell_cell(WAIT, "-o first"))
    terminal.see("started")
    gate.write_text("through\n")
    terminal.see("ended")
    assert "ok · " in terminal.ready()

    terminal.enter(shell_cell(STUBBORN, "-o second"))
    terminal.see("started")
    terminal.child.sendintr()
    terminal.see("trapped")
    terminal.child.sendintr()
    written = terminal.ready(within=20)
    assert living(tmp_path) == []
    assert "KeyboardInterrupt: run " in written
    assert "Traceback" not in written
    assert "'cancelled', 'SIGKILL'" in terminal.run("second.status, second.receipt.exit.signal")
    assert "once more" in terminal.run(shell_cell("echo once more"))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_lacks_characters_gets_them_as_escapes(tmp_path: Path, encoding: str) -> None:
    code = f"""%load_ext cc_executor
{MAGIC}("cc_execute", "--agent shell --shell bash -o result", "echo '✓ ä begun'; echo again; echo '✓ end'")
{MAGIC}("cc_tasks", "", "tasks:\\n- {{run: echo listed}}")
get_ipython().run_line_magic("cc", "list")
get_ipython().run_line_magic("cc", "show " + result.receipt.run_id)
print(ascii(result.text))
import sys; during = sys.stdout.errors
%unload_ext cc_executor
print(during, sys.stdout.errors)
"""
    options = ("--no-banner", "--colors=NoColor", "--HistoryManager.enabled=False")
    done = subprocess.run(
        [sys.executable, "-m", "IPython", *options, "-c", code],
        cwd=tmp_path, env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True, encoding=encoding, timeout=BUDGET, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr + done.stdout
    assert "'\\u2713 \\xe4 begun\\nagain\\n\\u2713 end\\n'" in done.stdout
    assert done.stdout.count("\\u2713 end\n") == 2, "as it came, and in %cc show"
    assert "\\u2713 1/1 " in done.stdout
    assert done.stdout.endswith("backslashreplace strict\n")


def test_the_verbs_of_cc_are_readable(terminal: Terminal, tmp_path: Path) -> None:
    gate = make_gate(tmp_path)
    assert "Nothing was run yet." in terminal.run("%cc list")
    begun = terminal.run(shell_cell(WAIT, "--bg -o handle"))
    (run_id,) = set(re.findall(r"\b[0-9a-f]{26}\b", begun))
    assert "goes on in the background" in begun
    eventually(lambda: len(living(tmp_path)) == 2, within=60, what="the script runs, and what it waits for")

    listed = terminal.run("%cc list")
    assert re.search(
        rf"run +started +status +time +cost +agent +prompt\r?\n{run_id}  \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d  running ", listed
    ), listed
    assert f"Run {run_id} is going on: `%cc attach {run_id}` shows it live." in terminal.run("%cc show")
    assert f"Run {run_id} stands still (2 processes)." in terminal.run("%cc pause")
    assert f"Run {run_id} goes on (2 processes)." in terminal.run(f"%cc resume {run_id[-6:]}")
    assert "its receipt is sealed when it has ended" in terminal.run("%cc receipt")

    terminal.enter("%cc attach")
    terminal.see("started")
    terminal.child.sendintr()
    left = terminal.ready(within=20)
    assert f"Run {run_id} goes on; `%cc attach {run_id}` watches it again" in left
    assert "Traceback" not in left
    assert living(tmp_path)

    terminal.enter(f"%cc attach {run_id}")
    terminal.see("started")
    gate.write_text("through\n")
    terminal.see("ended")
    assert "<Result ok, " in terminal.ready()
    assert "'ok'" in terminal.run("(await handle).status")
    shown = terminal.run("%cc show")
    assert "through" in shown
    assert "'text/html'" not in shown
    receipt = terminal.run("%cc receipt")
    assert f'"run_id": "{run_id}",' in receipt.splitlines()[-1] or re.search(rf'^  "run_id": "{run_id}",\r?$', receipt, re.MULTILINE), (
        receipt
    )

    terminal.run(shell_cell(WAIT, "--bg"))
    assert re.search(r"Run [0-9a-f]{26} is being ended \(\d processes\)\.", terminal.run("%cc cancel"))
    eventually(lambda: not living(tmp_path), within=20, what="nothing of the run is alive")
    eventually(lambda: "cancelled · " in terminal.run("%cc show"), within=20, what="its receipt is sealed")
    assert '"kind": "cancelled"' in terminal.run("%cc receipt")
    assert " cancelled " in terminal.run("%cc list")
    examined = terminal.run("%cc doctor")
    assert re.search(r"^[✓–✗] .+: .+$", examined, re.MULTILINE), examined
    assert "There is no run 'ffffffff'" in terminal.run("%cc show ffffffff")
    for line in ("%cc list 2", "%cc list --limit 2", "%cc list one two"):
        assert "%cc list takes nothing: it shows the newest 20 runs. `%cc history --limit 50` shows more" in terminal.run(line)
    assert "%cc doctor takes nothing" in terminal.run("%cc doctor one two")
    assert "%cc show takes one run at most, not 'one two'" in terminal.run("%cc show one two")
