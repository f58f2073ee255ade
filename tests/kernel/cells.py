"""Cells for the tests in real kernels and terminals."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

import pytest

from cc_executor.shim import ladder
from cc_executor.shim.records import CONTROL
from support.environments import KERNELS
from support.kernel import Answer
from support.leaks import marked_processes
from support.looks import eventually

# For tests of the shared kernel in whose matter ipykernel has no part; `make matrix` runs them with every one.
NEWEST_LINE: Final = pytest.mark.parametrize("shared_kernel", [KERNELS[0].name], indirect=True)

WIDGET_MIME: Final = "application/vnd.jupyter.widget-view+json"

# Says that it is there, then waits for a word at the gate. The quotes keep the word out of what a terminal echoes.
WAIT: Final = "echo $$ > pid; echo sta''rted; cat gate; echo en''ded"
# Looks up again and again: a signal that comes just before bash blocks in a call is acted on after it only, and at a gate that would be never.
REST: Final = "read -r -t 0.1 nothing <> gate"
STUBBORN: Final = f"""trap "echo trap''ped; : > trapped" INT; trap '' TERM; echo $$ > pid; echo sta''rted; while :; do {REST}; done"""

# A supervisor that waits so long for the agent to clean up after an interrupt that no slow machine comes to the next signal by itself.
PATIENT_SUPERVISOR: Final = """
import signal, sys
sys.path.append({source!r})
from cc_executor.shim import ladder, start
for rung in ladder.STOP:
    if rung.signum == signal.SIGINT:
        rung.grace = 100.0
start.main()
"""
IMPATIENT: Final = "supervisor._SHIM = supervisor_before"


def ok(answer: Answer) -> Answer:
    """An answer that has to be one."""
    assert answer.status == "ok", answer.traceback
    return answer


def shell_cell(script: str, options: str = "") -> str:
    """A cell that runs a shell script as its agent."""
    return f"%%cc_execute --agent shell --shell bash {options}\n{script}"


def make_gate(folder: Path) -> Path:
    """The gate of `WAIT`: who reads it waits for somebody who writes."""
    gate = folder / "gate"
    os.mkfifo(gate)
    return gate


def patient(folder: Path) -> str:
    """Code for a kernel or a terminal: what it starts then has a `PATIENT_SUPERVISOR`, which is written into the folder. `IMPATIENT` takes it back."""
    script = folder / "patient.py"
    script.write_text(PATIENT_SUPERVISOR.format(source=str(Path(ladder.__file__).parents[2])))
    return f"from cc_executor.runtime import supervisor; supervisor_before = supervisor._SHIM; supervisor._SHIM = {str(script)!r}"


def wait_for_pid(folder: Path) -> int:
    """The shell that runs the script, when it has begun."""
    path = folder / "pid"
    text = eventually(lambda: path.exists() and path.read_text().strip(), within=60, what="the script runs")
    return int(text)


def signals_of(run: Path) -> list[str]:
    """What the processes of a run were sent, rung by rung of its stop."""
    records = [json.loads(line) for line in (run / CONTROL).read_bytes().splitlines()]
    return [record["signal"] for record in records if record["kind"] == "signalled"]


def living(folder: Path) -> list[str]:
    """The commands of runs that name this folder and are alive."""
    return [process.command for process in marked_processes([folder])]
