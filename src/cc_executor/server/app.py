"""The extension as jupyter_server runs it: handlers, and what keeps a server alive that has runs at work. Knows jupyter_server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from jupyter_server._tz import utcnow
from jupyter_server.auth.identity import IdentityProvider, LegacyIdentityProvider, PasswordIdentityProvider
from jupyter_server.extension.application import ExtensionApp
from jupyter_server.serverapp import ServerApp

from cc_executor.errors import StateUnusable
from cc_executor.server import asker
from cc_executor.server.audit import Audit
from cc_executor.server.authorizer import name_of
from cc_executor.server.eventlog import RunEvents
from cc_executor.server.extension import register
from cc_executor.server.jsonlog import log_as_json
from cc_executor.server.mcphttp import MANIFEST, Manager, ManifestHandler, McpHandler
from cc_executor.server.mcphttp import PATH as MCP_PATH
from cc_executor.server.rest import handlers
from cc_executor.server.settings import ServerSettings
from cc_executor.server.websocket import PATH, RunsSocket
from cc_executor.store.place import RUNS, state_path

if TYPE_CHECKING:
    from jupyter_server.base.handlers import JupyterHandler

    from cc_executor.server.activity import AtWork
    from cc_executor.server.service import Service

logger = logging.getLogger(__name__)

STARTED_HERE: Final = Path("server", "owners")  # in the state folder: there was a run that a server started
ON_PAGE: Final = "ccExecutor"  # as in `static/server.js`
# Providers of jupyter_server itself: a token without a cookie gets a new random name for every request (5 of 5 in the measurements).
_NAMELESS: Final = (IdentityProvider, PasswordIdentityProvider, LegacyIdentityProvider)


class CCExecutorServer(ServerSettings, ExtensionApp):
    """Runs of agents over REST, under the server's own URL and login. It opens no port and owns no process."""

    name = "cc_executor"
    load_other_extensions = True
    _service: Service | None = None
    _mcp: Manager | None = None
    _audit: Audit | None = None
    _events: RunEvents
    _log_handler: logging.Handler | None = None
    _beating: asyncio.Task[None] | None = None
    _is_at_work = False

    classes: ClassVar[list[type[Any]]] = []

    @property
    def _server(self) -> ServerApp:
        assert self.serverapp is not None  # the extension is linked to its server before anything else is asked of it
        return self.serverapp

    def initialize_handlers(self) -> None:
        """Register the routes. What they need is imported with the first request: a server that never sees a run pays nothing."""
        self.handlers.extend([*handlers(), (PATH, RunsSocket), (MCP_PATH, McpHandler), (MANIFEST, ManifestHandler)])

    def initialize_settings(self) -> None:
        """Tell the handlers where the service is, and register the pre-save hook."""
        register(self._server)  # where no start hook is run (pytest-jupyter runs none, nor do applications that embed the server)
        self.settings["cc_executor_service"] = self.service
        self.settings["cc_executor_mcp"] = self.mcp
        self.settings[asker.SETTING] = self.may_take
        # What JupyterLab and Notebook 7 write into their pages: a live view knows from it that there is a server to ask, and asks no other.
        self._server.web_app.settings.setdefault("page_config_data", {})[ON_PAGE] = True
        self.settings["cc_executor_ping_interval"] = self.ping_interval
        self.settings["cc_executor_audit"] = self.audit
        event_logger: Any = self._server.event_logger
        self._events = RunEvents(event_logger)  # now, so that others can listen
        if self.owner_mode == "user" and not self._knows_names:
            self.log.warning(
                "CCExecutorServer.owner_mode is 'user', and %s knows no names: without a cookie each request comes from somebody else, who finds no run"
                " of the one before. Leave it out, or take an identity provider with names.",
                type(self._server.identity_provider).__name__,
            )
        if self.json_logs:
            self._log_handler = log_as_json(os.environ, sys.stderr)

    def service(self) -> Service:
        """What the handlers call, made when it is first needed."""
        if self._service is None:
            from cc_executor.server.owners import Owners
            from cc_executor.server.service import Service
            from cc_executor.store.home import StateHome

            home = StateHome(state_path(os.environ))
            owners = Owners(home.root, by_name=self._by_name(), server_owner=os.environ.get("JUPYTERHUB_USER", ""))
            self._service = Service(
                home=home, environ=dict(os.environ), owners=owners, rules=self.rules(), root=Path(self._server.root_dir)
            )
            self._service.audit = self.audit()
            self._service.notices.own = self.own_notify()
            self._service.tell = self._events.tell
        return self._service

    def may_take(self, handler: JupyterHandler, wanted: str) -> bool:
        """Whether what is kept of a run or a list may be put into a notebook that somebody opens or saves: it is theirs, or nobody's."""
        return not self._by_name() or self.service().lookup.may_take(wanted, who=name_of(handler, self.service()))

    def audit(self) -> Audit:
        """Where it is noted who wanted what, made when it is first needed."""
        if self._audit is None:
            self._audit = Audit(state_path(os.environ), environ=os.environ, by_name=self._by_name(), told=self._events.audited)
        return self._audit

    def mcp(self) -> Manager:
        """What answers agents, made when it is first needed."""
        if self._mcp is None:
            self._mcp = Manager(self.service())
        return self._mcp

    def _by_name(self) -> bool:
        return self._knows_names if self.owner_mode == "auto" else self.owner_mode == "user"

    @property
    def _knows_names(self) -> bool:
        return type(self._server.identity_provider) not in _NAMELESS

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        """After all extensions are loaded, one of which may have replaced the contents manager (jupytext does)."""
        register(serverapp)
        try:
            root = state_path(os.environ)
        except StateUnusable as error:  # a server has to come up, and whoever asks for runs is told the same
            logger.error("%s Runs cannot be used here until then.", error)
            return
        if (root / STARTED_HERE).exists():
            try:
                await self.service().resume()
            except Exception:  # a server has to come up; what is asked for later says what is wrong
                logger.exception("the runs that go on could not be looked at")
        self._beating = asyncio.get_running_loop().create_task(self._beat(), name="cc_executor heartbeat")

    async def stop_extension(self) -> None:
        """Let go of the runs, which go on. Never raises: one extension that does spoils the others' end."""
        if self._beating is not None:
            self._beating.cancel()
        if self._mcp is not None:
            self._mcp.close()
        if self._audit is not None:
            self._audit.settle()
        if self._log_handler is not None:
            logging.getLogger("cc_executor").removeHandler(self._log_handler)
        if self._service is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._service.aclose(), 5)

    def current_activity(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride] - annotated None, and used as a truth value
        """Whether a run or a list was at work at the last look; asked by the server before it shuts itself down."""
        return self._is_at_work

    async def _beat(self) -> None:
        """Tell a hub's culler, which looks at the time of the last activity alone (measured: culled after 24 s without, after the run's end with)."""
        at_work: AtWork | None = None
        root = state_path(os.environ)
        while True:
            if at_work is None and (root / RUNS).exists():  # a server that never sees a run loads nothing for it
                from cc_executor.server.activity import AtWork

                at_work = AtWork(
                    root, most=self.max_activity, clock=time.monotonic, checked=lambda: self._service.checked() if self._service else ()
                )
            if at_work is not None:
                try:
                    self._is_at_work = await asyncio.to_thread(at_work.look)
                except Exception:  # root of a task: the next look may see more
                    logger.exception("what is at work could not be looked at")
                if self._is_at_work:
                    self._server.web_app.settings.setdefault("last_activity_times", {})[self.name] = utcnow()
            await asyncio.sleep(self.heartbeat)


def running_here() -> CCExecutorServer | None:
    """The extension of the Jupyter server that this process is; None where it is none, or where the extension was switched off."""
    if not ServerApp.initialized():
        return None
    running: Any = cast("Any", ServerApp.instance()).extension_manager.extension_apps.get("cc_executor", ())
    return next((app for app in running if isinstance(app, CCExecutorServer)), None)
