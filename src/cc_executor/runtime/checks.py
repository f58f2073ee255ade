"""Checks outside the agent: files that had to change, and the user's own command. Made when the run has ended, by whoever seals its receipt."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from cc_executor.model.receipt import Check
from cc_executor.model.request import RunRequest
from cc_executor.policy.environment import DEPTH, deeper
from cc_executor.policy.redact import Redactor
from cc_executor.runtime.errand import Errand, in_thread
from cc_executor.runtime.leftovers import end_marked
from cc_executor.runtime.plan import Plan, change_of
from cc_executor.shim import records
from cc_executor.store import underway
from cc_executor.store.journal import RunFolder

VERIFY_BUDGET: Final = 600.0  # seconds; a test suite fits, a hang ends the same evening
KILL_BUDGET: Final = 5.0  # seconds until a check that is not wanted any more has ended
LOOK: Final = 0.05  # seconds between two looks at whether the check is still wanted
_DETAIL_LIMIT: Final = 2000  # characters of a check's output that the receipt keeps: its end, where the reason stands
# Bytes that are kept until then: four for each character, and room before them for a secret to be seen whole.
_OUTPUT_LIMIT: Final = 16 * _DETAIL_LIMIT
# Bytes that are read after the command has ended: a pipe holds 64 KiB, and what the command left behind may write for ever.
_REST_LIMIT: Final = 2**20


class Checking:
    """The checks of one run. They can be ended from any thread, for a person may wait at the other end of them.

    Parameters
    ----------
    environ : mapping of str to str
        The environment for the user's command.
    redactor : Redactor
        Masks what that command writes.
    """

    def __init__(self, environ: Mapping[str, str], redactor: Redactor) -> None:
        self.environ = environ
        self._redactor = redactor
        self._unwanted = threading.Event()

    def end(self) -> None:
        """End the check that is being made, and make no other."""
        self._unwanted.set()

    @property
    def is_unwanted(self) -> bool:
        """Whether nobody wants to wait for it any more."""
        return self._unwanted.is_set()

    async def make(self, request: RunRequest, plan: Plan, *, folder: RunFolder, was_stopped: bool) -> tuple[Check, ...]:
        """Every check that was asked for. `was_stopped`: the user's command is left out, for there is nothing to be proved of a run cut short."""
        found = await in_thread(lambda: [_file_check(name, before, cwd=request.cwd) for name, before in plan.before.items()])
        if request.verify is not None:
            if was_stopped or self._is_unwanted(folder):
                found.append(Check(what=request.verify, passed=None, detail="not run: the run was stopped"))
            else:
                found.append(await self._command(request.verify, cwd=request.cwd, folder=folder))
        return tuple(found)

    def _is_unwanted(self, folder: RunFolder) -> bool:
        return self._unwanted.is_set() or underway.is_unwanted(folder.path)

    async def _command(self, command: str, *, cwd: str, folder: RunFolder) -> Check:
        def work(stop: threading.Event) -> Check:
            return self._run(command, cwd, mark_of_check(folder.run_id), lambda: stop.is_set() or self._is_unwanted(folder))

        return await Errand(work, patience=KILL_BUDGET, takes_long=True).run()

    def _run(self, command: str, cwd: str, mark: str, is_over: Callable[[], bool]) -> Check:
        """The user's own command line, in the user's own environment; in its own session and marked, so that it can be ended whole."""
        environment = {**self.environ, records.RUN_MARK: mark, DEPTH: deeper(self.environ)}
        end_marked(mark)  # what is left of a check whose maker was killed before it could end it
        script = f"\n{command}" if command.startswith(("-", "+")) else command  # a sign would make it an option of the shell
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", script],
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:  # ValueError: a character that no system call takes
            return Check(what=command, passed=None, detail=f"could not be started: {getattr(error, 'strerror', None) or error}")
        try:
            output, why_not = self._wait(process, is_over)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            end_marked(mark)
        if why_not:
            return Check(what=command, passed=None, detail=why_not)
        code = process.returncode
        words = f"exit code {code}" if code >= 0 else f"ended by {_signal_name(-code)}"
        detail = self._redactor.seen(output.decode(errors="replace"))[-_DETAIL_LIMIT:].strip()
        return Check(what=command, passed=code == 0, detail=words + (f": {detail}" if detail else ""))

    def _wait(self, process: subprocess.Popen[bytes], is_over: Callable[[], bool]) -> tuple[bytes, str]:
        """The end of the output once the command has ended, and why it did not end by itself, if so."""
        assert process.stdout is not None  # it was asked for
        deadline = time.monotonic() + VERIFY_BUDGET
        output, rest = bytearray(), 0
        poll = select.poll()
        with process.stdout as pipe:
            poll.register(pipe, select.POLLIN)
            open_ = True
            while True:
                if is_over():
                    return bytes(output), "was ended: nobody wanted to wait for it any more"
                if time.monotonic() >= deadline:
                    return bytes(output), f"did not end in {VERIFY_BUDGET:.0f} s and was ended"
                ended = process.poll() is not None
                if not open_:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(LOOK)
                elif poll.poll(0 if ended else LOOK * 1000):
                    chunk = os.read(pipe.fileno(), 65536)
                    output += chunk
                    del output[:-_OUTPUT_LIMIT]
                    open_ = bool(chunk)
                    rest += len(chunk) if ended else 0
                    if rest <= _REST_LIMIT:
                        continue
                if ended:  # what it left behind may hold the pipe for ever
                    return bytes(output), ""


def mark_of_check(run_id: str) -> str:
    """What the processes of a run's check carry as their mark. Not the run's own: what is left of that is ended by itself."""
    return f"{run_id}-verify"


def _file_check(name: str, before: str | None, *, cwd: str) -> Check:
    what, change = f"file {name}", change_of(name, cwd=cwd, before=before)
    if change.after is None:
        if change.size is None:
            return Check(what=what, passed=False, detail="is not there, or is no plain file that can be read")
        return Check(what=what, passed=None, detail=f"has {change.size:,} bytes, too many to compare")
    if change.after == change.before:
        return Check(what=what, passed=False, detail="is unchanged")
    return Check(what=what, passed=True, detail="is new" if change.before is None else "has changed")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has only its number
        return f"signal {number}"
