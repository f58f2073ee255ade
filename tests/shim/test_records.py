"""What the shim writes is what the model reads: the two sides of the record format."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import msgspec

import cc_executor.shim.records as fmt
from cc_executor.model.event import ControlRecord, Exited, LeftBehind, Started
from cc_executor.model.exit import ExitFacts
from support.shims import Run, until, watch

Start = Callable[..., Run]

STRICT = msgspec.json.Decoder(ControlRecord)


def decoded(run: Run) -> list[ControlRecord]:
    """The records, typed; each field that was written is one that the model knows."""
    records = [STRICT.decode(line) for line in run.read(fmt.CONTROL).splitlines()]
    for raw, record in zip(run.records(), records, strict=True):
        assert set(raw) == set(record.__struct_fields__) | {"kind"}, raw["kind"]
    return records


def test_every_kind_of_record_decodes(start: Start, tmp_path: Path) -> None:
    kinds: set[str] = set()

    full = tmp_path / "full"
    full.mkdir(mode=0o700)
    (full / fmt.STDERR).symlink_to("/dev/full")
    degraded = start(("/bin/sh", "-c", "echo x >&2"), folder=full)
    degraded.wait()
    kinds |= {type(record).__name__ for record in decoded(degraded)}

    limited = start(("/bin/sleep", "60"), wall=0.3)
    limited.wait()
    kinds |= {type(record).__name__ for record in decoded(limited)}

    paused = start(("/bin/sleep", "60"))
    paused.ask(op="pause", by="a")
    paused.ask(op="resume", by="b")
    paused.process.send_signal(signal.SIGSTOP)
    watch(3.2)
    paused.process.send_signal(signal.SIGCONT)
    until(lambda: [record for record in paused.records() if record["kind"] == "frozen"])
    os.kill(paused.agent, signal.SIGKILL)
    paused.wait()
    kinds |= {type(record).__name__ for record in decoded(paused)}

    asking = tmp_path / "asking"
    asking.mkdir(mode=0o700)
    (asking / fmt.PROMPT).write_text("go\n")
    marks = {"talk": {"asked": ['{"ask":"'], "withdrawn": []}, "linger": {"done": ["done"], "anew": [], "seconds": 30}}
    asked = start(("/bin/sh", "-c", """echo '{"ask":"q1"}'; read -r go; read -r answer"""), folder=asking, stdin="talk", **marks)
    until(lambda: asked.ask(op="status")["asks"])
    asked.ask(op="answer", ask="q1", data="yes", by="a", what="w", decision="allow", note="n")
    asked.wait()
    kinds |= {type(record).__name__ for record in decoded(asked)}

    # It ends when its child is what it is to be: until `exec` that has the shell's own name.
    leaving = start(("/bin/sh", "-c", "sleep 60 >/dev/null 2>&1 & until grep -qa ^sleep /proc/$!/cmdline; do :; done"))
    leaving.wait()
    records = decoded(leaving)
    kinds |= {type(record).__name__ for record in records}
    assert kinds == {member.__name__ for member in get_args(ControlRecord)}

    first, last = records[0], records[-1]
    assert isinstance(first, Started)
    assert (first.agent_pid, first.shim_pid) == (leaving.agent, leaving.process.pid)
    assert isinstance(last, Exited)
    assert (last.code, last.signal, last.survivors) == (0, None, 0)
    left = next(record for record in records if isinstance(record, LeftBehind))
    assert left.processes[0].command == "sleep 60"

    facts = msgspec.json.decode(leaving.read(fmt.EXIT), type=ExitFacts)
    assert facts.left_behind == left.processes
    assert facts.records == len(records)
    for run in (degraded, limited, paused, leaving):
        assert tuple(json.loads(run.read(fmt.EXIT))) == fmt.EXIT_FIELDS
        msgspec.json.decode(run.read(fmt.EXIT), type=ExitFacts)
        assert [record.seq for record in decoded(run)] == list(range(len(run.records())))
        times = [record.t for record in decoded(run)]
        assert times == sorted(times)


def test_the_exit_facts_are_complete_before_the_exited_record(start: Start) -> None:
    for number in range(10):
        run = start(("/bin/sh", "-c", f"echo {number}"))
        until(lambda run=run: b'"exited"' in run.read(fmt.CONTROL))
        assert json.loads(run.read(fmt.EXIT))["records"] == len(run.records())
        assert not (run.folder / "exit.json.part").exists()
        run.wait()
        assert run.kinds() == ["started", "exited"]


def test_the_lock_is_held_as_long_as_the_shim_lives(start: Start) -> None:
    import fcntl

    run = start(("/bin/sleep", "60"))
    with (run.folder / fmt.LOCK).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            held = True
        else:
            held = False
        assert held
        run.ask(op="cancel", now=True)
        run.wait()
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
