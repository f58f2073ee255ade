"""`%cc VERB [RUN]`: look at runs and command them. Each verb is a few lines over the store and the runtime."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from cc_executor.errors import InvalidRequest, RunNotFound
from cc_executor.kernel.askcommands import answer_verb
from cc_executor.kernel.cell import attach_blocking, ended_bundle, home_of, newest, stored_bundle
from cc_executor.kernel.display import show_mime, show_static
from cc_executor.kernel.historycommands import estimate_verb, history_verb
from cc_executor.kernel.lint import lint_verb
from cc_executor.kernel.loop import interruptible
from cc_executor.kernel.reportcommands import report
from cc_executor.kernel.shell_pump import shell_pump
from cc_executor.kernel.undocommands import undo_verb
from cc_executor.model.ansi import clean
from cc_executor.model.notice import duration
from cc_executor.model.receipt import Receipt
from cc_executor.model.table import html_table
from cc_executor.runtime.blocking import run_in_thread
from cc_executor.runtime.control import command
from cc_executor.runtime.doctor import examine
from cc_executor.runtime.errand import in_thread
from cc_executor.runtime.past import WRAPPED
from cc_executor.runtime.reconcile import LIST_PATIENCE, reconcile
from cc_executor.runtime.run import Run
from cc_executor.runtime.summary import RunSummary, summaries
from cc_executor.runtime.workspace import trust, untrust
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder

LIST_LENGTH: Final = 20


def run_verb(shell: Any, line: str) -> Any:
    """Do what `%cc line` says.

    Raises
    ------
    InvalidRequest
        No such verb, or too many words.
    """
    verb, *rest = line.split() or ["list"]
    if verb in _TEXT_VERBS:
        return _TEXT_VERBS[verb](shell, line.strip().removeprefix(verb).strip())
    action = _VERBS.get(verb)
    if action is None:
        raise InvalidRequest(f"%cc has no verb {verb!r}; it knows {', '.join([*_VERBS, *_TEXT_VERBS])}.")
    if len(rest) > 1:
        raise InvalidRequest(f"%cc {verb} takes one run at most, not {' '.join(rest)!r}.")
    return action(shell, rest[0] if rest else "")


async def run_verb_beside(shell: Any, line: str) -> Any:
    """`run_verb` in a thread: a command is answered in some milliseconds, and where it is not (5 s), the loop and the views of other runs go on."""
    with shell_pump(getattr(shell, "kernel", None)):
        return await interruptible(in_thread(lambda: run_verb(shell, line), takes_long=True))


def _folder(shell: Any, name: str) -> RunFolder:
    home = home_of(shell)
    wanted = name or newest(home)
    if not wanted:
        raise RunNotFound("Nothing was run yet.")
    return home.find(wanted)


def _list(shell: Any, name: str) -> None:
    if name:
        raise InvalidRequest(f"%cc list takes no run. `%cc show {name}` shows one.")
    reconcile(home_of(shell), environ=os.environ, patience=LIST_PATIENCE)
    rows = summaries(home_of(shell), now=time.time(), limit=LIST_LENGTH)
    if not rows:
        print("Nothing was run yet.")  # noqa: T201 - the command's answer
        return
    table = [("run", "started", "status", "time", "cost", "agent", "prompt"), *(_cells(row) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]) - 1)]
    plain = "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in table
    )
    marked = html_table(table, wrapped=WRAPPED)
    show_mime({"text/plain": plain, "text/html": marked}, {})


def _cells(row: RunSummary) -> tuple[str, ...]:
    status = f"{row.status} (rehearsal)" if row.rehearsed else row.status
    return (
        row.id,
        datetime.fromtimestamp(row.started).astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        status,
        "" if row.elapsed is None else duration(row.elapsed),
        "" if row.cost is None else f"${row.cost:.4f}",
        row.agent,
        row.label or row.prompt,
    )


def _show(shell: Any, name: str) -> None:
    folder = _folder(shell, name)
    bundle = stored_bundle(folder)
    if bundle is None and folder.is_supervised():
        print(f"Run {folder.run_id} is going on: `%cc attach {folder.run_id}` shows it live.")  # noqa: T201 - the command's answer
        return
    show_static(bundle or run_in_thread(ended_bundle(shell, folder.run_id)))


def _attach(shell: Any, name: str) -> Any:
    return attach_blocking(shell, name)


def _receipt(shell: Any, name: str) -> Receipt:
    folder = _folder(shell, name)
    receipt = folder.receipt()
    if receipt is None:
        if folder.is_supervised():
            raise InvalidRequest(f"Run {folder.run_id} is going on; its receipt is sealed when it has ended.")
        receipt = run_in_thread(_sealed(home_of(shell), folder.run_id))
    return receipt


async def _sealed(home: StateHome, run_id: str) -> Receipt:
    run = await Run.attach(home, run_id, environ=os.environ)
    async for _ in run.follow():
        pass
    return await run.finish()


def _control(op: str) -> Callable[[Any, str], None]:
    said = {"pause": "stands still", "resume": "goes on", "cancel": "is being ended"}[op]

    def act(shell: Any, name: str) -> None:
        folder = _folder(shell, name)
        fields = {"reason": "cancel"} if op == "cancel" else {}
        status = command(folder, op, by="magic", **fields)
        print(f"Run {folder.run_id} {said} ({status.get('processes', 0)} processes).")  # noqa: T201 - the command's answer

    return act


def _doctor(shell: Any, name: str) -> None:
    if name:
        raise InvalidRequest("%cc doctor takes no run.")
    for finding in examine(home=home_of(shell), environ=os.environ):
        cure = f" — {finding.cure}" if finding.cure else ""
        print(f"{'✓' if finding.ok else '✗' if finding.required else '–'} {finding.what}: {finding.detail}{cure}")  # noqa: T201 - the command's answer


def _trust(shell: Any, folder: str) -> None:
    print(clean(trust(os.path.expanduser(folder or "."), home=home_of(shell), environ=os.environ)))  # noqa: T201 - the command's answer


def _untrust(shell: Any, folder: str) -> None:
    print(clean(untrust(os.path.expanduser(folder or "."), home=home_of(shell))))  # noqa: T201 - the command's answer


_VERBS: Final[dict[str, Callable[[Any, str], Any]]] = {
    "list": _list,
    "show": _show,
    "attach": _attach,
    "pause": _control("pause"),
    "resume": _control("resume"),
    "cancel": _control("cancel"),
    "receipt": _receipt,
    "doctor": _doctor,
}
# The rest of the line is a folder, whatever spaces are in its name, or a text.
_TEXT_VERBS: Final[dict[str, Callable[[Any, str], Any]]] = {
    "trust": _trust,
    "untrust": _untrust,
    "report": report,
    "lint": lint_verb,
    "undo": undo_verb,
    "answer": answer_verb,
    "history": history_verb,
    "estimate": estimate_verb,
}
