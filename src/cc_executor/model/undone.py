"""What an undo did, or would do, as its caller gets it. Knows words; undoes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from cc_executor.model.ansi import clean

SHOWN: Final = 20  # paths in a message


@dataclass(frozen=True, slots=True)
class Step:
    """One path and what became of it, or would: ``restored``, ``brought back``, ``removed`` or ``mode``."""

    path: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """What an undo did, or would do.

    Attributes
    ----------
    runs : tuple of str
        The runs that were undone, newest first.
    steps : tuple of Step
        Files and links; folders follow from them.
    left : tuple of (str, str)
        Paths that were left as they are, with the reason.
    folders : tuple of str
        New folders that stay, for they hold other things.
    is_dry : bool
        Nothing was changed.
    is_redo : bool
        An undo was undone.
    was_completed : bool
        It had been begun before, and was cut short.
    """

    runs: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    left: tuple[tuple[str, str], ...] = ()
    folders: tuple[str, ...] = ()
    is_dry: bool = False
    is_redo: bool = False
    was_completed: bool = False

    @property
    def summary(self) -> str:
        """One sentence."""
        count = len(self.steps)
        what = f"{count:,} file{'' if count == 1 else 's'}"
        who = f"run {self.runs[0]}" if len(self.runs) == 1 else f"{len(self.runs)} runs"
        if self.is_dry:
            said = f"{'Redoing' if self.is_redo else 'Undoing'} {who} would change {what}; nothing was changed."
        elif not self.steps and not self.left and not self.is_redo:
            said = f"{who[:1].upper()}{who[1:]} changed no file that undo looks at: there was nothing to undo."
        elif self.is_redo:
            said = f"What {who} did is there again: {what}."
        else:
            said = f"{who[:1].upper()}{who[1:]} {'is' if len(self.runs) == 1 else 'are'} undone: {what}. `undo --redo {self.runs[0]}` takes that back."
        return f"An undo that was cut short is completed. {said}" if self.was_completed else said

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "runs": list(self.runs),
            "steps": [{"path": step.path, "what": step.what} for step in self.steps],
            "left": [{"path": path, "why": why} for path, why in self.left],
            "folders": list(self.folders),
            "dry_run": self.is_dry,
            "redo": self.is_redo,
            "completed": self.was_completed,
        }

    def __repr__(self) -> str:
        lines = [self.summary, *(f"  {step.what:<12} {step.path}" for step in self.steps[:SHOWN])]
        if len(self.steps) > SHOWN:
            lines.append(f"  and {len(self.steps) - SHOWN:,} more")
        lines += [f"  left as it is: {path} ({why})" for path, why in self.left]
        lines += [f"  stays, for it holds other things: {folder}" for folder in self.folders]
        return clean("\n".join(lines))  # an agent has named the files, and a terminal may show this
