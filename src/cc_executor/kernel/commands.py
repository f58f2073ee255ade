"""`%cc VERB [RUN]`: look at runs and command them. Each verb is a few lines over the store and the runtime."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final

from cc_executor.errors import InvalidRequest
from cc_executor.kernel.askcommands import answer_verb
from cc_executor.kernel.cell import attach_blocking, ended_bundle, home_of, sealed
from cc_executor.kernel.display import show_mime, show_static
from cc_executor.kernel.historycommands import estimate_verb, history_verb
from cc_executor.kernel.lint import lint_verb
from cc_executor.kernel.loop import interruptible
from cc_executor.kernel.options import path_of, words_of
from cc_executor.kernel.reportcommands import report
from cc_executor.kernel.shell_pump import shell_pump
from cc_executor.kernel.undocommands import undo_verb
from cc_executor.model.ansi import clean
from cc_executor.model.receipt import Receipt
from cc_executor.model.table import columns, html_table
from cc_executor.runtime.blocking import run_in_thread
from cc_executor.runtime.control import command
from cc_executor.runtime.doctor import examine
from cc_executor.runtime.errand import in_thread
from cc_executor.runtime.past import WRAPPED
from cc_executor.runtime.reconcile import LIST_PATIENCE, reconcile
from cc_executor.runtime.summary import HEAD, summaries
from cc_executor.runtime.workspace import trust, untrust
from cc_executor.store.bundle import read_bundle
from cc_executor.store.journal import RunFolder

LIST_LENGTH: Final = 20
# Verbs behind which nothing stands, and what is said to whoever has put something there.
_ALONE: Final = {
    "list": f": it shows the newest {LIST_LENGTH} runs. `%cc history --limit 50` shows more of those that have ended, and `%cc show RUN` one",
    "doctor": "",
}


def run_verb(shell: Any, line: str) -> Any:
    """Do what `%cc line` says.

    Raises
    ------
    InvalidRequest
        No such verb, or too many words; or the folder that it is about is the current one, which is gone.
    """
    try:
        return _run(shell, line)
    except FileNotFoundError as error:
        if error.filename is not None:  # of getcwd(3) there is none
            raise
        raise InvalidRequest("The current folder does not exist any more. Change to another.") from None


def _run(shell: Any, line: str) -> Any:
    verb, *rest = line.split(None, 1) or ["list"]
    text = rest[0].rstrip() if rest else ""
    if verb in _TEXT_VERBS:
        return _TEXT_VERBS[verb](shell, text)
    action = _VERBS.get(verb)
    if action is None:
        raise InvalidRequest(f"%cc has no verb {verb!r}; it knows {', '.join([*_VERBS, *_TEXT_VERBS])}.")
    if text and verb in _ALONE:
        raise InvalidRequest(f"%cc {verb} takes nothing{_ALONE[verb]}.")
    names = words_of(text)
    if len(names) > 1:
        raise InvalidRequest(f"%cc {verb} takes one run at most, not {' '.join(names)!r}.")
    return action(shell, names[0] if names else "")


async def run_verb_beside(shell: Any, line: str) -> Any:
    """`run_verb` in a thread: a command is answered in some milliseconds, and where it is not (5 s), the loop and the views of other runs go on."""
    with shell_pump(getattr(shell, "kernel", None)):
        return await interruptible(in_thread(lambda: run_verb(shell, line), takes_long=True))


def _folder(shell: Any, name: str) -> RunFolder:
    return home_of(shell).pick(name)


def _list(shell: Any, _: str) -> None:
    reconcile(home_of(shell), environ=os.environ, patience=LIST_PATIENCE)
    rows = summaries(home_of(shell), now=time.time(), limit=LIST_LENGTH)
    if not rows:
        print("Nothing was run yet.")  # noqa: T201 - the command's answer
        return
    table = [HEAD, *(row.cells() for row in rows)]
    show_mime({"text/plain": "\n".join(columns(table)), "text/html": html_table(table, wrapped=WRAPPED)}, {})


def _show(shell: Any, name: str) -> None:
    folder = _folder(shell, name)
    bundle = read_bundle(folder)
    if bundle is None and folder.is_at_work():
        print(f"Run {folder.run_id} is going on: `%cc attach {folder.run_id}` shows it live.")  # noqa: T201 - the command's answer
        return
    show_static(bundle or run_in_thread(ended_bundle(shell, folder.run_id)))


def _attach(shell: Any, name: str) -> Any:
    return attach_blocking(shell, name)


def _receipt(shell: Any, name: str) -> Receipt:
    folder = _folder(shell, name)
    receipt = folder.receipt()
    if receipt is None:
        if folder.is_at_work():
            raise InvalidRequest(f"Run {folder.run_id} is going on; its receipt is sealed when it has ended.")
        receipt = sealed(home_of(shell), folder.run_id)
    return receipt


def _control(op: str) -> Callable[[Any, str], None]:
    said = {"pause": "stands still", "resume": "goes on", "cancel": "is being ended"}[op]

    def act(shell: Any, name: str) -> None:
        folder = _folder(shell, name)
        fields = {"reason": "cancel"} if op == "cancel" else {}
        status = command(folder, op, by="magic", **fields)
        print(f"Run {folder.run_id} {said} ({status.get('processes', 0)} processes).")  # noqa: T201 - the command's answer

    return act


def _doctor(shell: Any, _: str) -> None:
    for finding in examine(home=home_of(shell), environ=os.environ):
        print(finding)  # noqa: T201 - the command's answer


def _folder_of(line: str) -> str:
    """The folder that a line names: in quotes, as in a terminal, or without, whatever spaces and apostrophes are in its name."""
    try:
        words = words_of(line)
    except InvalidRequest:
        words = []
    return path_of(words[0] if len(words) == 1 else line or ".")


def _trust(shell: Any, line: str) -> None:
    print(clean(trust(_folder_of(line), home=home_of(shell), environ=os.environ)))  # noqa: T201 - the command's answer


def _untrust(shell: Any, line: str) -> None:
    print(clean(untrust(_folder_of(line), home=home_of(shell))))  # noqa: T201 - the command's answer


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
