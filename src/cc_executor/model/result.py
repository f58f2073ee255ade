"""What the caller of a run gets: the receipt, with names for what is asked for most."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cc_executor.model.receipt import FileChange, Receipt, TokenUsage


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one run.

    Attributes
    ----------
    receipt : Receipt
        The whole sealed record.
    folder : Path
        The run's folder with the journal: `folder / "stdout"` is the agent's output, byte for byte.
    """

    receipt: Receipt
    folder: Path
    bundle: tuple[dict[str, Any], dict[str, Any]] | None = field(default=None, repr=False, compare=False)

    @property
    def text(self) -> str:
        """The agent's final text."""
        return self.receipt.text

    @property
    def data(self) -> Any:
        """The structured output as Python objects; None without a schema."""
        return self.receipt.data

    @property
    def files(self) -> tuple[FileChange, ...]:
        """Files that were written or expected to change, with digests."""
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

    def raise_for_outcome(self) -> None:
        """Raise `CCExecutionError` unless the outcome is ok."""
        self.receipt.raise_for_outcome()

    def __repr__(self) -> str:
        cost = "" if self.cost is None else f", ${self.cost:.4f}"
        rehearsed = f", rehearsal {self.receipt.rehearsed!r}" if self.receipt.rehearsed else ""
        return f"<Result {self.status}, {self.receipt.times.active:.1f} s{cost}{rehearsed}, run {self.receipt.run_id}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.bundle if self.bundle is not None else ({"text/plain": repr(self)}, {})
