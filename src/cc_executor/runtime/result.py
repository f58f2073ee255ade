"""What the caller of a run gets: the receipt, with names for what is asked for most."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cc_executor.model.notice import money
from cc_executor.model.receipt import FileChange, Receipt, TokenUsage
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder

if TYPE_CHECKING:
    from cc_executor.model.undone import Undone
    from cc_executor.runtime.report import Report


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one run.

    Attributes
    ----------
    receipt : Receipt
        The whole sealed record.
    folder : Path
        The run's folder with the journal: `folder / "stdout"` is the agent's output, byte for byte.
    remark : str
        Why no further attempt was made that was wished for; empty where there is nothing to say.
    """

    receipt: Receipt
    folder: Path
    bundle: tuple[dict[str, Any], dict[str, Any]] | None = field(default=None, repr=False, compare=False)
    remark: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        """The agent's final text. Of one of more than 32,000 characters its beginning and its end, with a line between them that counts the rest."""
        return self.receipt.text

    @property
    def data(self) -> Any:
        """The structured output as Python objects; None without a schema."""
        return self.receipt.data

    @property
    def files(self) -> tuple[FileChange, ...]:
        """Files that are different after the run, as two looks at the folder have seen it; where there were none, those that the agent says to have written."""
        return self.receipt.files

    @property
    def cost(self) -> float | None:
        """US dollars as the agent counted them; None when it did not say."""
        return self.receipt.cost

    @property
    def usage(self) -> TokenUsage:
        """Tokens."""
        return self.receipt.usage

    @property
    def status(self) -> str:
        """The outcome's name; ``"ok"`` is success."""
        return self.receipt.outcome.kind.value

    @property
    def ok(self) -> bool:
        """Whether the outcome is ok."""
        return self.receipt.outcome.ok

    def report(self) -> Report:
        """What there is to tell of the run: `markdown`, `html`, `save(path)`. Reads its journal."""
        from cc_executor.runtime.report import report_of_run

        return report_of_run(RunFolder(self.folder))

    def rollback(self, *, dry_run: bool = False, keep_mine: bool = False, redo: bool = False) -> Undone:
        """Bring back what was in the folder before the run: contents, modes and links; what the run made is removed. All of it, or nothing.

        Parameters
        ----------
        dry_run : bool
            Say what would be done; change nothing.
        keep_mine : bool
            Leave files alone that are not as the run left them, or that cannot be brought back, and restore the others.
        redo : bool
            Take a rollback back.

        Raises
        ------
        UndoRefused
            Files were changed since, or nobody has looked at the folder before the run. Nothing was changed.
        UndoIncomplete
            It failed midway, and so did going back; another one completes it.
        """
        from cc_executor.runtime import undo

        home = StateHome(self.folder.parent.parent)
        if redo:
            return undo.redo(home, self.receipt.run_id, dry_run=dry_run, keep_mine=keep_mine)
        return undo.undo(home, [self.receipt.run_id], dry_run=dry_run, keep_mine=keep_mine)

    def raise_for_outcome(self) -> None:
        """Raise `CCExecutionError` unless the outcome is ok."""
        self.receipt.raise_for_outcome()

    def __repr__(self) -> str:
        cost = "" if self.cost is None or self.receipt.rehearsed else f", {money(self.cost)}"
        rehearsed = f", rehearsal {self.receipt.rehearsed!r}" if self.receipt.rehearsed else ""
        return f"<Result {self.status}, {self.receipt.times.active:.1f} s{cost}{rehearsed}, run {self.receipt.run_id}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.bundle if self.bundle is not None else ({"text/plain": repr(self)}, {})
