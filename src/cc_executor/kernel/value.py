"""What a cell is worth in Python: the result of a run, or a handle on one that goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

from cc_executor.kernel.display import show_mime
from cc_executor.model.result import Result
from cc_executor.runtime.run import Run


class ShownResult(Result):
    """A `Result` whose cell shows it already: as that cell's value it stays silent once, and shows itself whenever it is asked for later."""

    __slots__ = ("_is_silent",)

    def silenced(self) -> ShownResult:
        """Make it silent the next time that it is displayed."""
        object.__setattr__(self, "_is_silent", True)
        return self

    def _ipython_display_(self) -> None:
        if getattr(self, "_is_silent", False):
            object.__setattr__(self, "_is_silent", False)
            return
        from IPython.core.getipython import get_ipython
        if not hasattr(get_ipython(), "kernel"):
            print(repr(self))  # noqa: T201 - a terminal's view of a value
            return
        data, metadata = self._repr_mimebundle_()
        show_mime(data, metadata)


class RunHandle:
    """A run in the background. `await handle` gives its `Result`; Pause, Resume and Cancel are methods too.

    Attributes
    ----------
    run_id : str
    result : Result or None
        None while it goes on.
    """

    def __init__(self, run: Run, task: asyncio.Task[ShownResult] | None) -> None:
        self._run = run
        self._task = task

    @property
    def run_id(self) -> str:
        """The run's id, for `%cc show` and `%cc attach`."""
        return self._run.run_id

    @property
    def result(self) -> Result | None:
        """The result, once the run has ended and was followed here."""
        return self._task.result() if self._task is not None and self._task.done() and not self._task.cancelled() else None

    def pause(self) -> None:
        """Stop every process of the run."""
        self._run.send("pause", by="python")

    def resume(self) -> None:
        """Let every process of the run go on."""
        self._run.send("resume", by="python")

    def cancel(self) -> None:
        """End every process of the run."""
        self._run.send("cancel", reason="cancel", by="python")

    def __await__(self) -> Generator[Any, Any, Result]:
        if self._task is None:
            raise RuntimeError(f"Run {self.run_id} is not followed here; `%cc attach {self.run_id}` does that.")
        return asyncio.shield(self._task).__await__()

    def __repr__(self) -> str:
        return f"<Run {self.run_id} in the background{'' if self.result is None else f', {self.result.status}'}>"
