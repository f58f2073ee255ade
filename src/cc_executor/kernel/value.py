"""What a cell is worth in Python: the result of a run, or a handle on one that goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, Protocol

from IPython.core.getipython import get_ipython

from cc_executor.kernel.display import Display, SilentDisplay, show_mime
from cc_executor.kernel.loop import cancelled, interruptible, own
from cc_executor.kernel.shell_pump import shell_pump
from cc_executor.runtime.result import Result
from cc_executor.runtime.run import Run


class ShownResult(Result):
    """A `Result` whose cell shows it already: as that cell's value it stays silent once, and shows itself whenever it is asked for later."""

    __slots__ = ("_is_silent",)

    def silenced(self) -> ShownResult:
        """Make it silent the next time that it is displayed."""
        object.__setattr__(self, "_is_silent", True)
        return self

    def remarked(self, remark: str) -> ShownResult:
        """Say why no further attempt was made."""
        object.__setattr__(self, "remark", remark)
        return self

    def _ipython_display_(self) -> None:
        if getattr(self, "_is_silent", False):
            object.__setattr__(self, "_is_silent", False)
            return
        if not hasattr(get_ipython(), "kernel"):
            print(repr(self))  # noqa: T201 - a terminal's view of a value
            return
        data, metadata = self._repr_mimebundle_()
        show_mime(data, metadata)


class Watch(Protocol):
    """Whoever follows a run and shows it."""

    display: Display

    async def follow(self) -> ShownResult:
        """Follow the run until it has ended."""
        ...


class Replay:
    """The watch of a run that has ended and that its cell has shown again: there is nothing to wait for."""

    def __init__(self, run: Run, result: ShownResult) -> None:
        self.display: Display = SilentDisplay(run)
        self._result = result

    async def follow(self) -> ShownResult:
        """The result, at once."""
        return self._result


class RunHandle:
    """A run in the background. `await handle` gives its `Result`; Pause, Resume and Cancel are methods too.

    Attributes
    ----------
    run_id : str
    result : Result or None
        None while it goes on.
    """

    def __init__(self, run: Run, watch: Watch, *, is_shown: bool) -> None:
        self._run = run
        self._watch = watch
        self._task: asyncio.Task[ShownResult] | None = None
        self._is_silent = is_shown

    @property
    def run_id(self) -> str:
        """The run's id, for `%cc show` and `%cc attach`."""
        return self._run.run_id

    @property
    def result(self) -> Result | None:
        """The result, once the run has ended and was followed here."""
        return self._task.result() if self._task is not None and self._task.done() and not self._task.cancelled() else None

    def __getattr__(self, name: str) -> Any:
        """What a `Result` has is to be had here, too, once there is one."""
        if name.startswith("_") or not hasattr(Result, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        result = self.result
        if result is None:
            raise AttributeError(
                f"Run {self.run_id} goes on, and has no {name} yet: `result = await handle` waits for its end.", name=name, obj=self
            )
        return getattr(result, name)

    def pause(self) -> None:
        """Stop every process of the run."""
        self._run.send("pause", by="python")

    def resume(self) -> None:
        """Let every process of the run go on."""
        self._run.send("resume", by="python")

    def cancel(self) -> None:
        """End every process of the run."""
        self._run.send("cancel", reason="cancel", by="python")

    def follow(self) -> asyncio.Task[ShownResult]:
        """Begin to follow the run on the running loop, unless that has begun."""
        if self._task is None:
            self._task = own(self._watch.follow(), name=f"cc_executor {self.run_id}")
        return self._task

    def __await__(self) -> Generator[Any, Any, Result]:
        return interruptible(self._end()).__await__()

    async def _end(self) -> Result:
        with shell_pump(getattr(get_ipython(), "kernel", None)):  # its view stands in another cell, and has buttons there
            try:
                result = await asyncio.shield(self.follow())
            except asyncio.CancelledError as error:
                raise cancelled(error, f"run {self.run_id} goes on") from None
        self._watch.display.repeat()
        return result

    def _ipython_display_(self) -> None:
        if not self._is_silent:
            raise NotImplementedError  # IPython's word for "in the usual way"
        self._is_silent = False  # its cell shows the run already

    def __repr__(self) -> str:
        return f"<Run {self.run_id} in the background{'' if self.result is None else f', {self.result.status}'}>"
