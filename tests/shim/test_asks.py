"""A shim hands over one answer to each question, to nobody else's, and writes down who gave it; while somebody is awaited, silence is no stall."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_executor.shim import records as fmt
from cc_executor.shim.asks import Asks
from support.shims import Run, changed, until, watch

Start = Callable[..., Run]

ASKED, WITHDRAWN, DONE = '{"ask":"', '{"back":"', '{"done"'
TALK: dict[str, Any] = {
    "stdin": "talk",
    "talk": {"asked": [ASKED], "withdrawn": [WITHDRAWN]},
    "linger": {"done": [DONE], "anew": [], "seconds": 30},
}
ASKER = ("/bin/sh", "-c", """read -r go; echo '{"ask":"q1"}'; while read -r answer; do :; done""")
# A shim in which no limit is reached before the agent has asked, however slow it is on a loaded machine; its clocks go from the start.
ONCE_ASKED = changed(
    "from cc_executor.shim.limits import Limits",
    "def reached(self, active, tool_runs, reached=Limits.reached):",
    "    return reached(self, active, tool_runs) if open('stdout').read() else self.sign(active)",
    "Limits.reached = reached",
)
# Says what it is told, line by line; `ask X` asks, `end` is its last word. It ends when its stdin is closed.
AGENT = """
import sys
for line in sys.stdin:
    print("got " + line, end="", flush=True)
    for word in line.split():
        if word[:3] == "ask":
            print('{"ask":"' + word[4:] + '"}', flush=True)
        if word[:4] == "back":
            print('{"back":"' + word[5:] + '"}', flush=True)
        if word == "end":
            print('{"done":1}', flush=True)
print("closed", flush=True)
"""


@pytest.fixture
def talk(start: Start) -> Callable[..., Run]:
    """A run whose agent is told `prompt` first."""

    def begin(prompt: str, **fields: Any) -> Run:
        folder = fields.pop("folder")
        folder.mkdir(mode=0o700)
        (folder / fmt.PROMPT).write_text(prompt)
        return start(fields.pop("agent", AGENT), folder=folder, **(TALK | fields))

    return begin


def output(run: Run) -> str:
    return run.read(fmt.STDOUT).decode()


def test_one_answer_reaches_the_agent_and_stands_in_the_journal(talk: Any, tmp_path: Any) -> None:
    run = talk("ask:q1\n", folder=tmp_path / "r")
    until(lambda: run.ask(op="status")["asks"] == ["q1"])
    run.ask(op="answer", ask="q1", data="yes", by="cli", what="Bash: make", decision="allow", note="n" * 5000)
    until(lambda: "got yes" in output(run))
    record = run.record("answered")
    assert (record["ask_id"], record["by"], record["what"], record["decision"]) == ("q1", "cli", "Bash: make", "allow")
    assert record["note"] == "n" * 2000
    assert run.ask(op="status")["asks"] == []
    run.ask(op="stdin", data="end\n")
    assert run.wait()["stop_reason"] is None, "its stdin was closed after its last word, and it did not linger"
    assert output(run).endswith("closed\n")
    assert output(run).count("got ") == 3


def refused(run: Run, **fields: Any) -> str:
    answer = run.ask(op="answer", **fields)
    assert answer["ok"] is False
    return answer["error"]


def test_a_question_takes_one_answer_and_only_while_it_is_open(talk: Any, tmp_path: Any) -> None:
    run = talk("ask:q1 ask:q2 ask:q3 back:q2\n", folder=tmp_path / "r")
    until(lambda: run.ask(op="status")["asks"] == ["q1", "q3"])
    run.ask(op="answer", ask="q1", data="yes")
    assert "answered already" in refused(run, ask="q1", data="no")
    assert "not open" in refused(run, ask="q2", data="no")
    assert "not open" in refused(run, ask="nobody's", data="no")
    assert "one line" in refused(run, ask="q3", data="two\nlines")
    assert "one line" in refused(run, ask="q3", data="")
    run.ask(op="stdin", data="end\n")
    run.wait()
    assert "no" not in [line.removeprefix("got ") for line in output(run).splitlines()]
    assert run.kinds().count("answered") == 1


def test_after_the_last_word_no_question_is_open(talk: Any, tmp_path: Any) -> None:
    deaf = ("/bin/sh", "-c", """read -r go; echo '{"ask":"q1"}'; echo '{"done":1}'; exec sleep 60""")
    run = talk("go\n", agent=deaf, folder=tmp_path / "r")
    until(lambda: '"done"' in output(run))
    assert run.ask(op="status")["asks"] == []
    assert "not open" in refused(run, ask="q1", data="yes")
    run.ask(op="cancel", now=True)
    run.wait()


def test_secrets_are_masked_in_what_is_written_down(talk: Any, tmp_path: Any) -> None:
    run = talk("ask:q1\n", folder=tmp_path / "r", secrets=["tops3cret-value"])
    until(lambda: run.ask(op="status")["asks"])
    run.ask(op="answer", ask="q1", data="x", what="echo tops3cret-value", note="because tops3cret-value")
    record = run.record("answered")
    assert "tops3cret" not in json.dumps(record)
    assert record["what"] == "echo [masked]"


def test_while_a_question_waits_the_run_does_not_stall_and_its_time_goes_on(talk: Any, tmp_path: Any) -> None:
    run = talk("go\n", agent=ASKER, folder=tmp_path / "r", stall=0.4, program=ONCE_ASKED)
    until(lambda: run.ask(op="status")["asks"])
    watch(1.2)
    assert run.ask(op="status")["state"] == "running"
    run.ask(op="answer", ask="q1", data="yes")
    assert run.wait()["stop_reason"] == "stalled"
    assert run.record("limit_reached")["t"] >= run.record("answered")["t"] + 0.4

    late = talk("go\n", agent=ASKER, folder=tmp_path / "late", stall=0.4, wall=1.0, program=ONCE_ASKED)
    assert late.wait()["stop_reason"] == "timeout"


def test_a_paused_run_and_one_that_is_cancelled_still_do_what_they_are_told(talk: Any, tmp_path: Any) -> None:
    run = talk("ask:q1 ask:q2\n", folder=tmp_path / "r")
    until(lambda: len(run.ask(op="status")["asks"]) == 2)
    run.ask(op="pause")
    run.ask(op="answer", ask="q1", data="yes")
    assert "got yes" not in output(run)
    run.ask(op="resume")
    until(lambda: "got yes" in output(run))
    run.ask(op="cancel")
    assert run.wait()["stop_reason"] == "cancel"


def test_a_prompt_larger_than_the_pipe_arrives_whole(talk: Any, tmp_path: Any) -> None:
    prompt = "x" * 3_000_000
    run = talk(f"{prompt}\nend\n", folder=tmp_path / "r")
    run.wait()
    assert f"got {prompt}\n" in output(run)


def test_a_run_that_was_not_told_to_ask_takes_no_answer(start: Start) -> None:
    run = start("import time; time.sleep(60)", stdin="open")
    assert "not told that it may ask" in refused(run, ask="q1", data="yes")


@pytest.mark.parametrize(
    "fields",
    [
        {"stdin": "talk"},
        {"talk": TALK["talk"]},
        TALK | {"linger": None},
        TALK | {"talk": {"asked": [], "withdrawn": []}},
        TALK | {"talk": 1},
    ],
)
def test_half_a_conversation_is_refused_before_anything_starts(start: Start, fields: Any) -> None:
    run = start(("/bin/true",), **fields)
    assert run.answer["ok"] is False
    assert "talk" in run.answer["error"]


@given(
    lines=st.lists(
        st.sampled_from(['{"ask":"a"}', '{"ask":"b","x":1}', '{"back":"a"}', '{"back":"b"}', "text", 'x{"ask":"c"}', '{"ask":"']),
        max_size=12,
    ),
    cuts=st.lists(st.integers(0, 200), max_size=8),
)
def test_questions_are_told_however_the_output_is_cut(lines: list[str], cuts: list[int]) -> None:
    expected: dict[str, None] = {}
    for line in lines:  # an id that does not end in its line is none
        if line.startswith(ASKED) and line[8:].count('"'):
            expected[line[8:].split('"')[0]] = None
        if line.startswith(WITHDRAWN):
            expected.pop(line[9:].split('"')[0], None)
    data = "".join(f"{line}\n" for line in lines).encode()
    asks = Asks((ASKED.encode(),), (WITHDRAWN.encode(),))
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for begin, end in pairwise(edges):
        asks.look(bytearray(data[begin:end]), end - begin)
    assert asks.open() == list(expected)


# Answers its own question: from a tool, from one that has left its parent, and from one that hands the connection on and is gone.
TRAITOR = """
import json, os, socket, subprocess, sys, time
print('{"ask":"q1"}', flush=True)
def tell():
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(os.environ["FOLDER"] + "/r/control.sock")
    return sock
def say(sock, op="answer"):
    sock.sendall(json.dumps({"op": op, "ask": "q1", "data": "yes"}).encode() + b"\\n")
    print(sock.makefile().readline().strip(), flush=True)
def lives(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:  # it may go while it is looked at
        return False
while '{"ask":"q1"}' not in open("r/stdout").read(): time.sleep(0.01)
say(tell())
say(tell(), "stdin")
for forks in (1, 2):
    sock = None
    if os.fork() == 0:
        if forks == 2:
            sock = tell()
        parent = os.getpid()
        if os.fork():
            os._exit(0)
        os.setsid()
        while lives(parent): time.sleep(0.01)  # the end of a process that is no child has no event here
        say(sock or tell())
        open(os.environ["FOLDER"] + "/said", "w").close()
        os._exit(0)
    os.wait()
    open(os.environ["FOLDER"] + "/said").read()
print('{"done":1}', flush=True)
"""


@pytest.mark.row("threats", "an agent's own process answers its request for leave", "refused, whatever it has left or handed on")
def test_no_process_of_the_run_answers_for_its_user(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir(mode=0o700)
    (folder / fmt.PROMPT).write_text("go\n")
    os.mkfifo(tmp_path / "said")
    run = start(TRAITOR, folder=folder, **TALK)
    run.wait()
    said = [json.loads(line) for line in output(run).splitlines() if '"ok"' in line]
    assert [answer["error"] for answer in said] == ["a process of the run itself cannot answer for its user"] * 4
    assert "answered" not in run.kinds()
