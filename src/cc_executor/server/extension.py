"""Registering the pre-save hook with a server. Nothing is imported from jupyter_server: a kernel without it can import this."""

from __future__ import annotations

import logging
import os
from typing import Any, Protocol

from cc_executor.server.opening import mending
from cc_executor.server.presave import PreSaveHook, presave_hook

_logger = logging.getLogger(__name__)


class ContentsManager(Protocol):
    """What we ask of a contents manager (jupyter_server 2.20 to 2.21)."""

    def register_pre_save_hook(self, hook: PreSaveHook) -> None:
        """Have `hook` called before every save."""
        ...


class ServerApp(Protocol):
    """What we ask of the server application."""

    contents_manager: Any


def register(serverapp: ServerApp) -> bool:
    """Register the pre-save hook with the server's contents manager, and have it show the ends of runs, once for each manager.

    Returns
    -------
    bool
        Whether it was registered now.
    """
    manager = serverapp.contents_manager
    if getattr(manager, "_cc_executor_hook", None) is not None:
        return False
    if not callable(getattr(manager, "register_pre_save_hook", None)):
        _logger.warning("%s takes no pre-save hooks: receipts stay in the outputs and are not lifted on save", type(manager).__name__)
        return False
    hook = presave_hook(environ=dict(os.environ))
    manager.register_pre_save_hook(hook)
    manager._cc_executor_hook = hook  # the mark lives and dies with the manager
    if callable(getattr(manager, "get", None)):
        manager.get = mending(manager.get, environ=dict(os.environ), app=serverapp)  # there is no hook for it
    return True
