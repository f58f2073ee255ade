"""Commands to a supervisor that hangs up, as one does whose places are all taken, or that ends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cc_executor.errors import ControlFailed
from cc_executor.runtime import control
from cc_executor.runtime.control import command
from cc_executor.shim import records
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder, RunStanding
from support.clocks import ClockOfSleeps
from support.runs import eventually, started


@contextmanager
def supervisor(home: StateHome, *, hangs_up: int, reads: bool) -> Iterator[tuple[RunFolder, list[None]]]:
    """Something at a run's socket that hangs up on the first callers (`reads`: after it has read what they say) and obeys the others. Gives who has called."""
    home.prepare()
    folder = home.runs_path / f"{1:026x}"
    folder.mkdir(mode=0o700)
    calls: list[None] = []

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            with caller:
                calls.append(None)
                if reads or len(calls) > hangs_up:
                    caller.recv(65536)
                if len(calls) > hangs_up:
                    caller.sendall(b'{"ok": true, "state": "paused"}\n')

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / records.SOCKET))
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield RunFolder(folder), calls
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("reads", [False, True], ids=["at once", "after it has heard"])
def test_a_command_on_which_the_supervisor_hangs_up_is_given_again(home: StateHome, *, reads: bool) -> None:
    with supervisor(home, hangs_up=3, reads=reads) as (folder, calls):
        assert command(folder, "pause")["state"] == "paused"
        assert len(calls) == 4


@pytest.mark.parametrize("reads", [False, True], ids=["at once", "after it has heard"])
def test_what_goes_to_the_agent_is_not_said_twice(home: StateHome, *, reads: bool) -> None:
    with supervisor(home, hangs_up=1, reads=reads) as (folder, calls):
        with pytest.raises(ControlFailed, match="ended before it answered"):
            command(folder, "stdin", data="yes\n")
        assert len(calls) == 1


def test_a_supervisor_that_hangs_up_for_ever_is_called_for_so_long(home: StateHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "time", ClockOfSleeps())
    monkeypatch.setattr(control, "ANSWER_BUDGET", 25.0)
    monkeypatch.setattr(control, "_CALL_AGAIN", 10.0)
    with supervisor(home, hangs_up=10**6, reads=False) as (folder, calls):
        with pytest.raises(ControlFailed, match="ended before it answered"):
            command(folder, "pause")
        assert len(calls) == 4  # at 0, 10, 20 and 30 seconds


@pytest.mark.parametrize("check", [None, "true"], ids=["no check", "a check that is over"])
async def test_of_a_run_that_has_ended_nothing_is_said_to_be_cancelled(tmp_path: Path, home: StateHome, check: str | None) -> None:
    run = await started("true", home=home, cwd=tmp_path, verify=check)
    if check is None:  # not sealed, for nobody has looked
        await eventually(lambda: run.folder.standing(time.time()) is RunStanding.ENDED)
    else:
        assert (await run.finish()).outcome.ok
    with pytest.raises(ControlFailed, match="has ended"):
        command(run.folder, "cancel", reason="cancel", by="test")
    assert (await run.finish()).outcome.ok
