"""Whose a run is, on a server that several people can reach. Knows names and small files; knows no tornado.

Inside one server this is no boundary against somebody who has a kernel or a terminal there: whoever runs code as the server's user can read the state
folder. It keeps apart people who have nothing but this extension, and it keeps everybody from ending somebody else's run by mistake.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from cc_executor.errors import StateUnusable
from cc_executor.model.request import RunId
from cc_executor.store.plain import read_plain

FOLDER: Final = "owners"
NAME_LIMIT: Final = 1024  # bytes


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
        self._folder = root / "server" / FOLDER
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
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._folder / run_id, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(owner.encode("utf-8", "surrogatepass")[:NAME_LIMIT])
        except OSError as error:
            if isinstance(error, FileExistsError) and self.of(run_id) == owner:  # a server died before it could start what it had promised
                return
            raise StateUnusable(
                f"{self._folder} cannot be written: {error.strerror}. Nothing was started; make room, or mend the folder."
            ) from error

    def forget(self, run_id: RunId | str) -> None:
        """The run was not started."""
        (self._folder / run_id).unlink(missing_ok=True)

    def of(self, run_id: RunId | str) -> str | None:
        """Who started a run through a server; None when it was started elsewhere."""
        try:
            return read_plain(self._folder / run_id, NAME_LIMIT).decode("utf-8", "surrogatepass")
        except (OSError, UnicodeDecodeError):
            return None

    @property
    def is_by_name(self) -> bool:
        """Whether names mean people."""
        return self._by_name

    def name_of(self, run_id: RunId | str) -> str:
        """Whose a run is; of those that were started elsewhere, the server's owner. Empty where names mean nothing."""
        owner = self.of(run_id) if self._by_name else ""
        return self.server_owner if owner is None else owner

    def may_see(self, run_id: RunId | str, who: str) -> bool:
        """Whether a run is somebody's own."""
        if not self._by_name:
            return True
        owner = self.of(run_id)
        return who == (self.server_owner if owner is None else owner)
