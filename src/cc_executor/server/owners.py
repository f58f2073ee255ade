"""Whose a run is, on a server that several people can reach. Knows names and small files; knows no tornado.

Inside one server this is no boundary against somebody who has a kernel or a terminal there: whoever runs code as the server's user can read the state
folder. It keeps apart people who have nothing but this extension, and it keeps everybody from ending somebody else's run by mistake.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cc_executor.model.request import RunId
from cc_executor.store import owners


class Overseer(str):
    """The name of somebody who may see everybody's runs and command them."""

    __slots__ = ()


class Owners:
    """Who started what.

    Parameters
    ----------
    root : Path
        The state folder.
    by_name : bool
        Whether people are told apart by their names.
    server_owner : str
        Whose the runs are that were started elsewhere (in a kernel, in a terminal), which is whoever the server runs for. Empty: not known.
    """

    def __init__(self, root: Path, *, by_name: bool, server_owner: str = "") -> None:
        self._root = root
        self._by_name = by_name
        self.server_owner = server_owner

    def who(self, username: str) -> str:
        """The name under which somebody's runs are kept."""
        return username if self._by_name else ""

    def claim(self, run_id: RunId | str, owner: str) -> None:
        """Write down whose a run will be, before it is started.

        Raises
        ------
        StateUnusable
        """
        owners.claim(self._root, run_id, owner)

    def forget(self, run_id: RunId | str) -> None:
        """The run was not started."""
        (self._root / owners.FOLDER / run_id).unlink(missing_ok=True)

    def of(self, run_id: RunId | str) -> str | None:
        """Who started a run through a server; None when it was started elsewhere."""
        return owners.owner_of(self._root, run_id)

    def owner(self, run_id: RunId | str) -> str:
        """Whose a run is: who started it, else whom the server runs for."""
        owner = self.of(run_id) if self._by_name else ""
        return self.server_owner if owner is None else owner

    def is_own(self, run_id: RunId | str, who: str) -> bool:
        """Whether a run is somebody's own."""
        return not self._by_name or self.owner(run_id) == who

    def only(self, who: str) -> Callable[[str], bool] | None:
        """What takes the ids of somebody's own runs; None where nobody is told apart."""
        return (lambda run_id: self.is_own(run_id, who)) if self._by_name else None

    def apart(self, who: str) -> str:
        """What keeps somebody's task lists apart from equal ones of other people; empty for whom the server runs for, whose lists of terminals go on here."""
        return who if self._by_name and who != self.server_owner else ""

    @property
    def is_by_name(self) -> bool:
        """Whether names mean people."""
        return self._by_name

    def may_see(self, run_id: RunId | str, who: str) -> bool:
        """Whether a run is somebody's own, or theirs to oversee."""
        return self.oversees(who) or self.is_own(run_id, who)

    def oversees(self, who: str) -> bool:
        """Whether somebody may see everybody's runs; where nobody is told apart, everybody may."""
        return not self._by_name or isinstance(who, Overseer)
