"""Every exception of cc_executor on one screen. One class per decision that a caller can take; each message names the cure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cc_executor.model.receipt import Receipt


class CCExecutorError(Exception):
    """The root: catch this to catch everything that cc_executor raises on purpose."""

    def _render_traceback_(self) -> list[str]:
        """One line instead of a stack: IPython and nbclient print what this returns, and the sentence says it all."""
        return [f"{type(self).__name__}: {self}"]

    def __reduce__(self) -> tuple[Any, ...]:
        """What it is made anew of in another process, which gets it from a worker; without that, a pool breaks or hangs."""
        return type(self), self._made_of(), self.__dict__

    def _made_of(self) -> tuple[Any, ...]:
        return self.args


class InvalidRequest(CCExecutorError, ValueError):
    """What was asked for cannot be run (empty prompt, negative timeout, missing folder). Nothing was started or spent; change the request."""


class AgentNotFound(CCExecutorError):
    """No executable of the agent could be found. Install it, put it on PATH, or name it with `cli=`."""


class AgentUnsupported(CCExecutorError):
    """The agent's executable is too old, or does not answer. Update it, or name another with `cli=`."""


class StateUnusable(CCExecutorError):
    """The folder that keeps runs cannot be used safely (unreadable, somebody else's, full). Mend it or set `CC_EXECUTOR_STATE`."""


class LaunchFailed(CCExecutorError):
    """The run could not be started; no agent runs and nothing was spent."""


class NestedTooDeep(LaunchFailed):
    """The run would lie within too many others. Nothing was started or spent, and trying again changes nothing: start it outside of them."""


class HookRefused(CCExecutorError):
    """A hook did not let a run start. Nothing was started or spent; the message names the hook and what it said.

    In a list nothing is raised: a task that is refused has failed, and a list that is refused is stopped.
    """


class DaySpent(CCExecutorError):
    """Today's runs have cost what may be spent on one day. Nothing was started; go on tomorrow, or raise `max_cost_per_day`."""


class RunNotFound(CCExecutorError, LookupError):
    """No run with this id is kept here. `%cc list` and `cc-executor list` show the ids."""


class TaskListNotFound(CCExecutorError, LookupError):
    """No task list with this id is kept here. `cc-executor tasks list` shows the ids."""


class InvalidTaskList(CCExecutorError, ValueError):
    """A task list cannot be run as it stands: a circle, an unknown need, a wrong option. Nothing was started; the message names every place.

    Attributes
    ----------
    problems : tuple of str
        One sentence for each thing that is wrong, with its place.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        count = "One thing is" if len(self.problems) == 1 else f"{len(self.problems)} things are"
        super().__init__(
            "\n".join((f"{count} wrong with the task list; nothing was started.", *(f"  {problem}" for problem in self.problems)))
        )

    def _made_of(self) -> tuple[Any, ...]:
        return (self.problems,)


class TaskListFailed(CCExecutorError):
    """A task list did not end well, and the caller asked for that to be raised.

    Attributes
    ----------
    list_id, status, summary : str
    """

    def __init__(self, list_id: str, status: str, summary: str) -> None:
        self.list_id, self.status, self.summary = list_id, status, summary
        again = "When the cause is gone, run the same list again: what ended well is not done again."
        super().__init__(f"{status}: {summary} (list {list_id}). {again}")

    def _made_of(self) -> tuple[Any, ...]:
        return self.list_id, self.status, self.summary


class ControlFailed(CCExecutorError):
    """A command (pause, resume, cancel) could not be given because the run has ended or does not answer."""


class UndoRefused(CCExecutorError):
    """What a run did cannot be undone as it stands. Nothing was changed; the message names the files and the cure.

    Attributes
    ----------
    conflicts : tuple of (str, str)
        Files that are the reason, with what is about each.
    """

    def __init__(self, message: str, conflicts: Sequence[tuple[str, str]] = ()) -> None:
        self.conflicts = tuple(conflicts)
        super().__init__(message)


class UndoIncomplete(CCExecutorError):
    """An undo failed in the midst of it, and so did going back. Nothing is lost: remove the cause, and undo again to complete it."""


class HistoryNotShared(CCExecutorError):
    """The history that several machines share cannot be used now. Runs are not affected; what is to be shared is kept and goes out later."""


class NotebookUnreadable(CCExecutorError):
    """The file is not a notebook or a receipt that can be read. Nothing was changed."""


class UnsupportedPlatform(CCExecutorError):
    """cc_executor needs POSIX processes and signals; on Windows, use WSL."""


class CCExecutionError(CCExecutorError):
    """A run ended with an outcome other than `ok`, and the caller asked for that to be raised.

    Attributes
    ----------
    receipt : Receipt
        The whole record: outcome, evidence, cure, times, usage, digests.
    """

    def __init__(self, receipt: Receipt) -> None:
        self.receipt = receipt
        outcome = receipt.outcome
        cure = f" {outcome.cure}" if outcome.cure else ""
        super().__init__(f"{outcome.kind.value}: {outcome.summary}{cure} (run {receipt.run_id})")

    def _made_of(self) -> tuple[Any, ...]:
        return (self.receipt,)

    def _render_traceback_(self) -> list[str]:
        """Three lines instead of a stack: IPython and nbclient print what this returns."""
        outcome = self.receipt.outcome
        lines = [f"CCExecutionError: {outcome.kind.value}: {outcome.summary}"]
        lines += [f"  evidence: {item}" for item in outcome.evidence]
        if outcome.cure:
            lines.append(f"  cure: {outcome.cure}")
        lines.append(f"  run: {self.receipt.run_id}  (%cc show {self.receipt.run_id})")
        return lines
