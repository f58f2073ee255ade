"""Whether the agent is logged in, as it says itself. One look for all who ask at the same time: the agent may take its time, and no other request waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from cc_executor.model.request import RunRequest
from cc_executor.runtime.errand import in_thread
from cc_executor.runtime.executable import find_executable
from cc_executor.runtime.login import LOGIN_CURE, login_of
from cc_executor.store.home import StateHome


class LoginLook:
    """For one server.

    Parameters
    ----------
    home : StateHome
    environ : mapping of str to str
        The environment that a run would get.
    """

    def __init__(self, home: StateHome, environ: Mapping[str, str]) -> None:
        self._home = home
        self._environ = environ
        self._looking: asyncio.Task[dict[str, Any]] | None = None

    async def told(self) -> dict[str, Any]:
        """``agent``, ``version``, ``logged_in``, ``method``, ``known``, ``cure``. Raises as `find_executable`."""
        if self._looking is None or self._looking.done():
            look = in_thread(self._look, takes_long=True)
            self._looking = asyncio.get_running_loop().create_task(look, name="cc_executor login")
        return await asyncio.shield(self._looking)  # whoever asks may go

    def _look(self) -> dict[str, Any]:
        found = find_executable(RunRequest(prompt="-", cwd="/"), environ=self._environ, home=self._home)
        login = login_of(found.path, environ=self._environ)
        return {"agent": "claude", "version": found.version, **asdict(login), "cure": "" if login.logged_in else LOGIN_CURE}
