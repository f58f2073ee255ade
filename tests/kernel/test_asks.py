"""Questions of an agent in real kernels: refused where a program runs the notebook, open again after a restart, answered by a view, a cell and a terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import nbformat
import pytest
from nbclient import NotebookClient

from cc_executor.kernel.asks import CellAsks
from cc_executor.kernel.display import StaticDisplay
from cc_executor.model.ask import Answer as Told
from cc_executor.model.ask import Decision
from cc_executor.model.event import Question, QuestionAsked
from cc_executor.model.receipt import RECEIPT_MIME
from cc_executor.runtime.answers import give, open_asks
from cc_executor.shim import records
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder
from cli.test_answer import TWO
from kernel.cells import NEWEST_LINE, WIDGET_MIME
from kernel.test_endings import PROMISE, living
from kernel.test_terminal import Terminal, terminal
from support import environments
from support.kernel import Answer, Kernel
from support.lab import notebook_of
from support.looks import eventually
from support.runs import eventually as until
from support.runs import run_folders, started, to_end

pytestmark = pytest.mark.usefixtures("claude_cli", "kernelspecs")

Saw = Callable[[str], None]

APPROVAL: Final = "%%cc_execute --ask --permission-mode default --rehearse approval -o r"
QUESTION: Final = "%%cc_execute --ask --rehearse question -o r"
BUDGET: Final = 60.0

__all__ = ["terminal"]  # a fixture


def person(kernel: Kernel, code: str) -> str:
    """Queue a cell as a front end does that can ask somebody."""
    return kernel.client.execute(code, allow_stdin=True)


def waited(folder: Path) -> list[float]:
    """Seconds from each question of a run to its answer, by its journal's clock."""
    output = (folder / records.STDOUT).read_bytes()
    index = list(records.INDEX.iter_unpack((folder / records.INDEX_FILE).read_bytes()))
    asked: dict[str, float] = {}
    for found in re.finditer(rb'^{"type":"control_request","request_id":"([^"]+)"', output, re.MULTILINE):
        asked[found[1].decode()] = max(t for offset, t, _, stream in index if stream == 0 and offset <= found.start())
    answers = [json.loads(line) for line in (folder / records.CONTROL).read_bytes().splitlines()]
    return [record["t"] - asked[record["ask_id"]] for record in answers if record["kind"] == "answered"]


@pytest.mark.row("faults", "agent asks in a notebook that a program runs", "refused within 1 s, reason told, cure in the verdict")
@pytest.mark.parametrize("name", [environment.name for environment in environments.KERNELS])
def test_a_notebook_that_a_program_runs_refuses_at_once(name: str, tmp_path: Path, state_folder: Path, saw: Saw) -> None:
    notebook = notebook_of(
        "%load_ext cc_executor",
        f"{APPROVAL} --no-raise-error\nGo.",
        f"%%capture\n{QUESTION} --no-raise-error\nGo.",
        "r.receipt.outcome.summary",
        kernel=name,
    )
    NotebookClient(notebook, timeout=int(BUDGET), resources={"metadata": {"path": str(tmp_path)}}).execute()
    (output,) = notebook.cells[1].outputs
    receipt = output.data[RECEIPT_MIME]
    assert receipt["outcome"]["kind"] == "denied"
    assert "executed without anybody at its front end" in receipt["outcome"]["summary"]
    assert receipt["outcome"]["cure"] == 'Run the cell in JupyterLab, or allow it beforehand with --tools "Write,Bash".'
    assert [one["decision"] for one in receipt["asked"]] == ["refused"] * 3
    assert not (tmp_path / "plan.md").exists()
    times = [seconds for folder in run_folders(state_folder) for seconds in waited(folder)]
    assert len(times) == 4
    assert max(times) < 1.0
    saw(f"{max(times):.3f} s")
    assert "the cell shows nothing before its end" in str(notebook.cells[3].outputs)
    nbformat.validate(notebook)


def asks_of(answer: Answer) -> list[dict[str, Any]]:
    """What the newest frame of a cell's view says to be open."""
    frames = [message["content"]["data"].get("content", {}) for message in answer.messages if message["msg_type"] == "comm_msg"]
    known = [frame["status"].get("asks", []) for frame in frames if frame.get("op") == "f"]
    return known[-1] if known else []


def tell(kernel: Kernel, view: str, **said: object) -> None:
    """Answer as a view does."""
    kernel.tell(view, {"method": "custom", "content": {"op": "answer", "view": "v", **said}})


def refusal(kernel: Kernel) -> str:
    """The sentence with which the newest answer is refused."""
    end = time.monotonic() + BUDGET
    while True:
        message = kernel.client.get_iopub_msg(timeout=max(0.1, end - time.monotonic()))
        content = message["content"].get("data", {}).get("content", {}) if message["msg_type"] == "comm_msg" else {}
        if content.get("op") == "unanswered":
            return content["text"]


def view_of(answer: Answer) -> str:
    return answer.displays[0][WIDGET_MIME]["model_id"]


@pytest.mark.row("faults", "kernel restarted while a question waits", "the question is open again and can be answered")
def test_a_question_is_open_again_after_a_restart_and_answered_in_the_view(own_kernel: Kernel, state_folder: Path) -> None:
    begun = own_kernel.wait(person(own_kernel, f"{QUESTION} --bg\nGo."))
    assert begun.status == "ok", begun.traceback
    (folder,) = eventually(lambda: run_folders(state_folder), within=60, what="the run is there")
    eventually(lambda: b"control_request" in (folder / records.STDOUT).read_bytes(), within=60, what="the agent asks")
    own_kernel.restart()
    assert own_kernel.run("%load_ext cc_executor").status == "ok"

    told = own_kernel.run("%cc answer")
    assert "Which data should the report use?" in told.stream
    assert "2  All years" in told.stream

    cell = person(own_kernel, "r = await get_ipython().run_line_magic('cc_attach_async', '')")
    answer = own_kernel.wait(cell, within=60, until=asks_of)
    (ask,) = asks_of(answer)
    assert [question["text"] for question in ask["questions"]] == ["Which data should the report use?", "Which parts do you want?"]
    view = view_of(answer)
    tell(own_kernel, view, ask=ask["id"], decision="answer", answers=["All years"])
    assert "give one answer for each" in refusal(own_kernel), "half an answer is refused, and the question stays open"
    tell(own_kernel, view, ask=ask["id"], decision="answer", answers=["All years", "Tables, my own"])
    answer = own_kernel.wait(cell, within=60, answer=answer)
    assert answer.status == "ok", answer.traceback
    assert (
        own_kernel.value("[(one.decision, one.by, one.note) for one in r.receipt.asked]")
        == "[('answer', 'view', 'All years · Tables, my own')]"
    )
    assert own_kernel.value("r.status") == "'ok'"


@pytest.mark.row(
    "faults", "kernel killed while a question waits, policy cancel", "0 processes of the run alive within 5 s; the receipt tells why"
)
def test_a_run_that_asks_ends_with_its_kernel(own_kernel: Kernel, state_folder: Path) -> None:
    own_kernel.wait(person(own_kernel, f"{QUESTION}\nGo."), within=60, until=asks_of)
    assert living(state_folder)
    os.kill(own_kernel.pid, signal.SIGKILL)
    eventually(lambda: not living(state_folder), within=PROMISE, what="nothing of the run lives")
    shown = subprocess.run(
        [sys.executable, "-m", "cc_executor.cli", "show", "--json"], capture_output=True, text=True, timeout=BUDGET, check=True
    )
    receipt = json.loads(shown.stdout)  # nobody was there to seal it; this does
    assert (receipt["outcome"]["kind"], receipt["exit"]["stopped_for"]) == ("cancelled", "kernel_exit")
    (folder,) = run_folders(state_folder)
    assert b"control_request" in (folder / records.STDOUT).read_bytes()


@NEWEST_LINE
def test_a_stale_and_a_strange_answer_are_refused_with_a_sentence(kernel: Kernel) -> None:
    cell = person(kernel, f"{APPROVAL} --no-raise-error\nGo.")
    answer = kernel.wait(cell, within=BUDGET, until=asks_of)
    (ask,) = asks_of(answer)
    assert (ask["title"], ask["body_kind"]) == ("Write", "diff")
    view = view_of(answer)

    tell(kernel, view, ask="nobody's", decision="allow")
    assert "not open any more" in refusal(kernel)
    tell(kernel, view, ask=ask["id"], decision="everything")
    assert refusal(kernel) == "There is no decision 'everything'. Choose one of allow, allow_run, deny, answer."
    tell(kernel, view, ask=ask["id"], decision="deny", text="not that")
    answer = kernel.wait(cell, within=BUDGET, until=lambda answer: ask["id"] not in str(asks_of(answer)), answer=answer)
    tell(kernel, view, ask=ask["id"], decision="allow")
    third = refusal(kernel)
    assert "answered already" in third or "not open any more" in third
    kernel.tell(view, {"method": "custom", "content": {"op": "command", "command": "cancel"}})
    answer = kernel.wait(cell, within=60, answer=answer)
    assert kernel.value("r.receipt.asked[0].decision, r.receipt.asked[0].note") == "('deny', 'not that')"


@NEWEST_LINE
def test_a_cell_answers_a_run_in_the_background_and_allows_only_what_it_names(kernel: Kernel, tmp_path: Path, state_folder: Path) -> None:
    assert kernel.wait(person(kernel, f"{APPROVAL} --bg\nGo.")).status == "ok"

    def asks_for(words: str) -> None:
        eventually(lambda: words in kernel.run("%cc answer").stream, within=BUDGET, what="the agent asks")

    asks_for("leave to change a file with Write")
    (folder,) = run_folders(state_folder)
    for line, says in (
        (f"allow {folder.name}", "'allow' takes nothing after it"),  # leave for the newest run, whatever run was meant
        ("run only the first", "'run' takes nothing after it"),
        (f"deny {folder.name}", "is a run, and no answer: name it before 'deny'"),
        ("text", "it asks for leave"),
        (f"{folder.name} yes", "'yes' is no answer"),
        ('deny "why', "Close the quotes"),
    ):
        assert says in kernel.run(f"%cc answer {line}").evalue
    assert not list(tmp_path.iterdir())
    assert kernel.run("%cc answer allow").stream == "Allowed once: Write: plan.md\n"
    asks_for("Make approved.txt and remove the draft")
    assert kernel.run(f"%cc answer {folder.name} deny only after lunch").stream == "Denied: Bash: touch approved.txt; rm -f draft.txt\n"
    asks_for("Once more")
    assert kernel.run("%cc answer run").stream == "Allowed for this run: Bash: touch approved.txt; rm -f draft.txt\n"
    told = kernel.value("'; '.join(f'{one.decision} {one.by} {one.note}' for one in (await r).receipt.asked)")
    assert told == "'allow magic ; deny magic only after lunch; allow_run magic '"
    assert {file.name for file in tmp_path.iterdir()} == {"plan.md", "approved.txt"}
    assert "has ended" in kernel.run("%cc answer allow").evalue


@NEWEST_LINE
def test_a_cell_gives_one_answer_to_each_question_of_a_run_in_the_background(kernel: Kernel) -> None:
    assert kernel.wait(person(kernel, f"{QUESTION} --bg\nGo.")).status == "ok"
    eventually(lambda: "All years" in kernel.run("%cc answer").stream, within=BUDGET, what="the agent asks")
    assert "asks 2: give one answer for each" in kernel.run('%cc answer text "All years"').evalue
    assert "it asks a question" in kernel.run("%cc answer allow").evalue
    assert kernel.run('%cc answer text "All years" Tables').stream.startswith("Answered: Which data should the report use?")
    assert (
        kernel.value("[(one.decision, one.by, one.note) for one in (await r).receipt.asked]")
        == "[('answer', 'magic', 'All years · Tables')]"
    )


@NEWEST_LINE
def test_a_cell_that_only_watches_refuses_nothing_though_nobody_can_answer_there(kernel: Kernel, state_folder: Path) -> None:
    assert kernel.wait(person(kernel, f"{QUESTION} --bg\nGo.")).status == "ok"
    watching = kernel.send("seen = await get_ipython().run_line_magic('cc_attach_async', '')")  # as a program runs it
    answer = kernel.wait(watching, within=BUDGET, until=asks_of)
    (path,) = run_folders(state_folder)
    (ask,) = open_asks(RunFolder(path))
    give(RunFolder(path), ask, Told(decision=Decision.ANSWER, answers=("All years", "Plots")), by="test")
    assert kernel.wait(watching, within=BUDGET, answer=answer).status == "ok"
    assert kernel.value("[one.by for one in seen.receipt.asked]") == "['test']"
    assert kernel.value("(await r).status") == "'ok'"


@NEWEST_LINE
def test_a_secret_in_a_file_that_would_be_written_over_is_masked_in_the_answer_of_a_cell(
    kernel: Kernel, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "plan.md").write_text("the old plan with a-secret-of-mine in it\n")
    kernel.run("import os; os.environ['MINE_TOKEN'] = 'a-secret-of-mine'")
    request.addfinalizer(lambda: kernel.run("%cc cancel\ndel os.environ['MINE_TOKEN']"))
    assert kernel.wait(person(kernel, f"{APPROVAL} --bg\nGo.")).status == "ok"
    eventually(lambda: "leave to change a file with Write" in kernel.run("%cc answer").stream, within=BUDGET, what="the agent asks")
    shown = kernel.run("%cc answer").stream
    assert "-the old plan with [masked] in it" in shown
    assert "a-secret-of-mine" not in shown


def test_a_terminal_asks_in_its_own_lines(terminal: Terminal, tmp_path: Path) -> None:
    terminal.enter(f"{APPROVAL} --no-raise-error\nGo.")
    terminal.see("leave to change a file with Write")
    terminal.see("tells the agent why")
    terminal.child.send("a\r")
    terminal.see("Make approved.txt and remove the draft")
    terminal.see("tells the agent why")
    terminal.child.send("r\r")
    assert "ok · " in terminal.ready()
    assert (tmp_path / "approved.txt").exists()
    assert "[('allow', 'terminal'), ('allow_run', 'terminal')]" in terminal.run("[(one.decision, one.by) for one in r.receipt.asked]")


@pytest.mark.parametrize("terminal", ["simple-prompt"], indirect=True)
def test_a_terminal_asks_one_thing_at_a_time_and_not_what_was_answered_elsewhere(
    terminal: Terminal, tmp_path: Path, state_folder: Path
) -> None:
    script = tmp_path / "two.toml"
    script.write_text(TWO)
    terminal.enter(f"%%cc_execute --ask --permission-mode default --rehearse {script} -o r\nGo.")
    terminal.child.expect(r"leave to use Read — /etc/hostname.*tells the agent why")
    (folder,) = run_folders(state_folder)
    asks = eventually(lambda: len(found := open_asks(RunFolder(folder))) == 2 and found, within=BUDGET, what="the agent asks for both")
    give(RunFolder(folder), asks[0], Told(decision=Decision.DENY), by="test")
    terminal.child.expect(r"leave to use Read — /etc/passwd.*tells the agent why")
    terminal.child.send("a\r")
    assert "ok · " in terminal.ready()
    assert "[('deny', 'test'), ('allow', 'terminal')]" in terminal.run("[(one.decision, one.by) for one in r.receipt.asked]")


@pytest.mark.parametrize("terminal", ["simple-prompt"], indirect=True)
def test_a_question_of_a_run_that_was_interrupted_takes_nothing_of_what_is_typed_next(terminal: Terminal) -> None:
    terminal.enter(f"{APPROVAL}\nGo.")
    terminal.see("tells the agent why")
    terminal.child.sendintr()
    assert "cancelled" in terminal.ready()
    assert "42" in terminal.run("await __import__('asyncio').sleep(0.1) or 6 * 7")


async def test_a_cell_that_looks_no_longer_takes_nothing_of_what_is_typed_next(
    tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It watched a run in the background, which goes on and still asks."""
    run = await started("true", home=home, cwd=tmp_path)
    typed, person_s = socket.socketpair()
    with typed, person_s:
        monkeypatch.setattr(sys, "stdin", typed)
        asks = CellAsks(SimpleNamespace(), run, StaticDisplay(run), owns=False)
        asks._put(QuestionAsked(ask_id="a", questions=(Question(text="Which one?"),)))
        shown: list[str] = []
        await until(lambda: shown.append(capsys.readouterr().out) or "Which one?" in "".join(shown))
        asks.close()
        person_s.sendall(b"6 * 7\n")
        await to_end(run)  # time enough for whoever reads
        typed.setblocking(False)
        assert typed.recv(100) == b"6 * 7\n"


def test_nobody_starts_a_run_whose_questions_could_wait_for_ever(terminal: Terminal) -> None:
    assert "give --timeout, too" in terminal.run(f"{QUESTION} --bg\nGo.")
