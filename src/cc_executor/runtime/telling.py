"""Whether somebody is to be told of a run; `notices` tells, and is loaded where there is somebody. Light: every run passes here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cc_executor.model.ask import Ask
from cc_executor.model.receipt import Receipt
from cc_executor.store.journal import RunFolder
from cc_executor.store.place import WISH

if TYPE_CHECKING:
    from cc_executor.model.notify import Notify
    from cc_executor.runtime.notices import RunNotices


class Telling:
    """Who is told of one run's end and of its questions, besides its hooks.

    Parameters
    ----------
    environ : mapping of str to str
        What commands get theirs from.
    say : callable
        Takes a sentence about somebody who could not be told; from any thread.
    wish : Notify or None
        Of a run that is started here.
    """

    def __init__(self, *, environ: Mapping[str, str], say: Callable[[str], object], wish: Notify | None = None) -> None:
        self.wish = wish
        self._environ = environ
        self._say = say
        self._notices: RunNotices | None = None

    def keep(self, folder: RunFolder) -> None:
        """Write down who is to be told, so that somebody else can."""
        if self.wish is None or not self.wish.targets:
            return
        from cc_executor.store.notices import keep

        try:
            keep(folder.path, self.wish)
        except OSError as error:
            self._say(f"Nobody will be told of this run's end: {folder.path} cannot be written ({error.strerror}).")
        else:
            self._begin(folder, self.wish)

    def find(self, folder: RunFolder) -> None:
        """Take over who is to be told of a run that somebody else has started."""
        if not (folder.path / WISH).exists():
            return
        from cc_executor.store.notices import wish_in

        if (wish := wish_in(folder.path)) is not None:
            self._begin(folder, wish)

    def _begin(self, folder: RunFolder, wish: Notify) -> None:
        from cc_executor.runtime.notices import RunNotices

        self._notices = RunNotices(folder, wish, environ=self._environ, say=self._say)

    def asked(self, asks: tuple[Ask, ...]) -> None:
        """Take note of what waits for an answer now; microseconds, from the loop."""
        if asks and self._notices is not None:
            self._notices.asked(asks)

    def dismiss(self) -> None:
        """Nothing further happens in the run."""
        if self._notices is not None:
            self._notices.dismiss()

    async def ended(self, receipt: Receipt) -> None:
        """Tell of the end, unless somebody has. Called when the receipt is sealed, and changes nothing of it."""
        if self._notices is not None:
            await self._notices.ended(receipt)
