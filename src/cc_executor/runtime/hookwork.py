"""One call of one hook, bounded in time: a command in its own session that is killed, a callable in a thread that is left alone. Blocking."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import os
import secrets
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from cc_executor.errors import InvalidRequest
from cc_executor.model.hook import DETAIL_CHARS, Hook, HookReport, HookStatus, refusal
from cc_executor.model.toolcall import one_line
from cc_executor.policy.environment import child_environment
from cc_executor.policy.redact import Redactor, is_secret_name
from cc_executor.runtime.leftovers import CALL_MARK, end_marked
from cc_executor.shim import records

MOMENT_VARIABLE: Final = "CC_HOOK_MOMENT"
LOOK: Final = 0.02  # seconds between two looks at whether the call is still wanted
# Bytes of output that are kept, for a sentence or an answer; the rest is read and thrown away, so that the command does not stand still. A refusal may
# quote what it is about: a patch, a log.
OUTPUT_LIMIT: Final = 2**20

# Set while a hook of ours is being called: what that starts has no hooks, or there would be no end to it.
_inside: Final[contextvars.ContextVar[bool]] = contextvars.ContextVar("cc_executor hook", default=False)


def is_inside_hook(environ: Mapping[str, str]) -> bool:
    """Whether this code was called by a hook, here or in a process that a hook has started."""
    return _inside.get() or MOMENT_VARIABLE in environ


class Surroundings(msgspec.Struct, frozen=True):
    """Where hooks are called.

    Attributes
    ----------
    environ : mapping of str to str
        The environment that a command's is chosen from.
    cwd : str
    names : mapping of str to str
        What a command is told by its environment: ``CC_RUN_ID``, ``CC_LIST_ID``, ``CC_TASK_ID``.
    mark : str
        By which all that the commands leave behind is found and ended when whoever called them is gone.
    """

    environ: Mapping[str, str]
    cwd: str
    names: Mapping[str, str]
    mark: str


def perform(hook: Hook, payload: Mapping[str, Any], *, where: Surroundings, redactor: Redactor, unwanted: threading.Event) -> HookReport:
    """Call a hook and tell what became of it; never raises, never takes longer than the hook's time and a moment."""
    began = time.monotonic()
    given: dict[str, Any] = redactor.json(dict(payload))
    if hook.call is not None:
        status, detail = _call(hook, hook.call, given, unwanted)
    elif hook.command:
        status, detail = _run(hook, given, where, unwanted)
    else:
        status, detail = HookStatus.NOT_RUN, "it is a callable of a process that is gone"
    if status is HookStatus.REFUSED and not hook.moment.is_before:
        status, detail = HookStatus.FAILED, f"it refuses ({detail}), and it is too late for that"
    said = one_line(redactor.seen(detail), DETAIL_CHARS)
    return HookReport(hook=hook.name, moment=hook.moment, status=status, detail=said, seconds=round(time.monotonic() - began, 3))


# --- callables --------------------------------------------------------------------------------------------------------


def _call(
    hook: Hook, call: Callable[[dict[str, Any]], object], payload: dict[str, Any], unwanted: threading.Event
) -> tuple[HookStatus, str]:
    found: list[tuple[HookStatus, str]] = []

    def work() -> None:
        _inside.set(True)
        try:
            answer = call(payload)
            if inspect.iscoroutine(answer):
                # A loop of its own: on the kernel's, a hook that blocks would hold up every cell and every view.
                with asyncio.Runner() as runner:
                    answer = runner.run(answer)
        except BaseException as error:  # noqa: BLE001 - the user's own code, in a thread of its own: whoever waits is told
            found.append((HookStatus.FAILED, f"{type(error).__name__}: {error}"))
            return
        reason = refusal(answer)
        found.append((HookStatus.OK, "") if reason is None else (HookStatus.REFUSED, reason))

    context = contextvars.copy_context()
    # Daemon: a thread cannot be ended from outside, and one that hangs must not keep the program alive.
    thread = threading.Thread(target=context.run, args=(work,), name=f"cc_executor hook {hook.name}", daemon=True)
    thread.start()
    deadline = time.monotonic() + hook.timeout
    while thread.is_alive() and time.monotonic() < deadline and not unwanted.is_set():
        thread.join(min(LOOK, max(0.0, deadline - time.monotonic())))
    if found:
        return found[0]
    if not thread.is_alive():  # it ended between the two looks
        return found[0] if found else (HookStatus.FAILED, "it ended without an answer")
    if unwanted.is_set():
        return HookStatus.HUNG, "nobody wanted to wait for it any more"
    return HookStatus.HUNG, f"it went on after {hook.timeout:g} s, and is left alone in its thread"


# --- commands ---------------------------------------------------------------------------------------------------------


def _run(hook: Hook, payload: dict[str, Any], where: Surroundings, unwanted: threading.Event) -> tuple[HookStatus, str]:
    try:
        environment = _environment(hook, where)
    except InvalidRequest as error:
        return HookStatus.FAILED, str(error)
    script = f"\n{hook.command}" if hook.command.startswith(("-", "+")) else hook.command  # a sign would make it an option of the shell
    try:
        # A file, not a pipe: nobody has to write while the command does not read.
        with tempfile.TemporaryFile(prefix="cc-hook-") as given:
            given.write(json.dumps(payload, ensure_ascii=True).encode())
            given.seek(0)
            process = subprocess.Popen(
                ["/bin/sh", "-c", script],
                cwd=where.cwd if Path(where.cwd).is_dir() else "/",
                env=environment,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
    except (OSError, ValueError) as error:  # a full disk; ValueError: a character that no system call takes
        return HookStatus.FAILED, f"it could not be started: {getattr(error, 'strerror', None) or error}"
    try:
        out, err, why_not = _wait(process, hook.timeout, unwanted)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        end_marked(environment[CALL_MARK], variable=CALL_MARK)  # not by the run's mark: other hooks of it may be at work
    if why_not:
        return HookStatus.HUNG, why_not
    text = out.decode(errors="replace").strip()
    if process.returncode:
        code = f"exit code {process.returncode}" if process.returncode > 0 else f"ended by signal {-process.returncode}"
        words = err.decode(errors="replace").strip() or text
        return HookStatus.FAILED, code + (f": {words}" if words else "")
    if len(out) >= OUTPUT_LIMIT and text.startswith("{"):  # it may refuse, and must not be taken for leave
        return HookStatus.FAILED, f"its answer is longer than {OUTPUT_LIMIT:,} bytes: make it shorter"
    reason = _refusal_in(text)
    return (HookStatus.OK, "") if reason is None else (HookStatus.REFUSED, reason)


def _environment(hook: Hook, where: Surroundings) -> dict[str, str]:
    """The allow-list, less the agent's logins: a hook asks no model. Whoever needs one names it."""
    additions = {**where.names, MOMENT_VARIABLE: hook.moment.value, records.RUN_MARK: where.mark, CALL_MARK: secrets.token_hex(8)}
    environment, _ = child_environment(where.environ, extra_names=hook.env, additions=additions, agent="")
    return {name: value for name, value in environment.items() if name in hook.env or not is_secret_name(name)}


def _refusal_in(text: str) -> str | None:
    """Why a command refuses, by all that it has written or by its last line: a guard may say other things before, and is to be heard all the same."""
    for said in (text, text.rpartition("\n")[2]):
        if said.startswith("{"):
            with suppress(ValueError, RecursionError):
                return refusal(json.loads(said))
    return None


def _wait(process: subprocess.Popen[bytes], timeout: float, unwanted: threading.Event) -> tuple[bytes, bytes, str]:
    """What the command wrote, and why it did not end by itself, if so."""
    assert process.stdout is not None  # both were asked for
    assert process.stderr is not None
    deadline = time.monotonic() + timeout
    kept = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    out, err = kept.values()
    poll = select.poll()
    why_not = ""
    with process.stdout, process.stderr:
        for descriptor in kept:
            os.set_blocking(descriptor, False)
            poll.register(descriptor, select.POLLIN)
        is_open = set(kept)
        while True:
            ended = process.poll() is not None
            _drain(poll.poll(0 if ended else LOOK * 1000), kept, is_open, poll)
            if ended:  # what it left behind may hold the pipes for ever
                break
            if unwanted.is_set():
                why_not = "nobody wanted to wait for it any more"
                break
            if time.monotonic() >= deadline:
                why_not = f"it went on after {timeout:g} s, and was killed"
                break
            if not is_open:
                unwanted.wait(LOOK)
    return bytes(out), bytes(err), why_not


def _drain(ready: list[tuple[int, int]], kept: dict[int, bytearray], is_open: set[int], poll: select.poll) -> None:
    for descriptor, _ in ready:
        try:
            chunk = os.read(descriptor, OUTPUT_LIMIT)
        except BlockingIOError:
            continue
        if not chunk:
            is_open.discard(descriptor)
            poll.unregister(descriptor)
        kept[descriptor] += chunk[: OUTPUT_LIMIT - len(kept[descriptor])]
