"""The Model Context Protocol at the server's own address. Knows tornado and the SDK's manager; the tools are `cc_executor.server.mcp`'s.

A session belongs to the name that has opened it, and to others it is not there. A server that starts anew knows none of them: clients are told so (404),
and open another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.extension.handler import ExtensionHandlerMixin
from jupyter_server.utils import ensure_async
from tornado import web

from cc_executor.server.asgi import answered
from cc_executor.server.authorizer import RESOURCE, name_of
from cc_executor.server.refusal import Refused
from cc_executor.server.trace import Traced

if TYPE_CHECKING:
    from cc_executor.server.service import Service

PATH: Final = "/cc-executor/mcp"
MANIFEST: Final = "/.well-known/mcp/cc-executor.json"
BODY_LIMIT: Final = 12 * 1024 * 1024  # bytes; a prompt of 10 MB
SESSIONS: Final = 256  # open at once; each is closed after half an hour without a request
SHARE: Final = 32  # of one person, where people are told apart: eight of them fill all, with four for each run that they may have at work


class Manager:
    """The SDK's manager, run in a task of its own: it has to be entered and left in one."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[Any] | None = None

    async def application(self) -> Any:
        """The ASGI application, started with the first request: the SDK costs half a second to load."""
        if self._ready is None:
            self._ready = asyncio.get_running_loop().create_future()
            self._task = asyncio.get_running_loop().create_task(self._run(self._ready), name="cc_executor mcp")
        return await asyncio.shield(self._ready)

    async def _run(self, ready: asyncio.Future[Any]) -> None:
        try:
            from cc_executor.server.mcp import Runs
            from cc_executor.server.mcpevents import Sessions

            share = SHARE if self._service.is_by_name else SESSIONS
            manager = Sessions(Runs(self._service).server(), share=share, most=SESSIONS, body_limit=BODY_LIMIT)
            async with manager.run():
                ready.set_result(manager.handle_request)
                await asyncio.Event().wait()
        except Exception as error:  # whoever waits for it is told; the next request tries again
            self._ready = None
            if not ready.done():
                ready.set_exception(error)
            else:
                raise

    def close(self) -> None:
        """End it."""
        if self._task is None:
            return
        self._task.cancel()
        for task in asyncio.all_tasks():
            # sse_starlette (3.7) waits for the end of a uvicorn by a task that it gives nobody; it would be complained of when the loop ends.
            if getattr(task.get_coro(), "__qualname__", "") == "_shutdown_watcher":
                task.cancel()


class McpHandler(Traced, ExtensionHandlerMixin, JupyterHandler):  # pyright: ignore[reportIncompatibleVariableOverride] - jupyter_server's own mixin
    """One request of the protocol. A token is needed: a page that has the cookie is no agent."""

    auth_resource = RESOURCE
    door = "mcp"
    route = PATH
    _track_activity = False

    def initialize(self, name: str = "") -> None:  # noqa: D102 - tornado's
        super().initialize(name)
        self._gone = asyncio.Event()

    def on_connection_close(self) -> None:
        """The client is gone."""
        self._gone.set()
        super().on_connection_close()

    def check_xsrf_cookie(self) -> None:
        """A cookie does not get in here, so that there is nothing to forge."""

    @allow_unauthenticated
    async def get(self) -> None:
        """The stream of what the client has not asked for, or of what it has missed."""
        await self._serve()

    @allow_unauthenticated
    async def post(self) -> None:
        """A message."""
        await self._serve()

    @allow_unauthenticated
    async def delete(self) -> None:
        """The end of a session."""
        await self._serve()

    async def _serve(self) -> None:
        if self.current_user is None or not self.token_authenticated:
            self.set_header("WWW-Authenticate", "Bearer")
            self.set_status(401)
            await self.finish("A token of this server is needed: Authorization: Bearer TOKEN.\n")  # pyright: ignore[reportUnknownMemberType] - tornado says `dict` of nothing
            return
        origin = self.request.headers.get("Origin")
        if origin is not None and not self._same(origin):
            raise web.HTTPError(403)
        if not await self._may("read"):
            raise web.HTTPError(403)
        manager = cast("Callable[[], Manager]", self.settings["cc_executor_mcp"])()
        try:
            application = await manager.application()
        except ImportError:
            self.set_status(501)
            await self.finish("The MCP SDK is not installed here: pip install 'cc-executor[mcp]'.\n")  # pyright: ignore[reportUnknownMemberType] - as above
            return
        from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
        from mcp.server.auth.provider import AccessToken

        from cc_executor.server.mcp import CALLER, Caller

        service = cast("Callable[[], Service]", self.settings["cc_executor_service"])()
        caller = Caller(name_of(self, service), self._may, self._gone)
        # By this the SDK tells whose a session is. The token itself stays here.
        user = AuthenticatedUser(AccessToken(token="-", client_id=RESOURCE, scopes=[], subject=caller.who))  # noqa: S106 - it is none
        try:
            await answered(self, application, self._gone, user=user, **{CALLER: caller})
        except Refused as refused:
            self._refuse(refused)

    def _refuse(self, refused: Refused) -> None:
        """As the SDK does, in our words: no request of the protocol's has been read yet."""
        from cc_executor.wire.jsonrpc import Code

        self.kind, self.reason = refused.kind, str(refused)
        self.set_status(refused.status)
        if refused.retry_after is not None:
            self.set_header("Retry-After", str(refused.retry_after))
        self.set_header("Content-Type", "application/json")
        data = {"kind": refused.kind, "retry_after": refused.retry_after}
        self.finish({"jsonrpc": "2.0", "id": None, "error": {"code": Code.REFUSED.value, "message": str(refused), "data": data}})  # pyright: ignore[reportUnknownMemberType] - as above

    def _same(self, origin: str) -> bool:
        return origin.split("://", 1)[-1] == self.request.host

    async def _may(self, action: str) -> bool:
        return bool(await ensure_async(self.authorizer.is_authorized(self, self.current_user, action, RESOURCE)))


class ManifestHandler(Traced, ExtensionHandlerMixin, JupyterHandler):  # pyright: ignore[reportIncompatibleVariableOverride] - as above
    """Where the protocol is spoken, for programs that look for it. Says nothing of anybody's runs."""

    route = MANIFEST

    @allow_unauthenticated
    def get(self) -> None:
        """The manifest."""
        from cc_executor import __version__

        url = f"{self.request.protocol}://{self.request.host}{self.base_url.rstrip('/')}{PATH}"
        transport = {"type": "streamable-http", "url": url}
        self.set_header("Content-Type", "application/json")
        self.finish({"name": "cc-executor", "version": __version__, "transport": transport, "authentication": {"type": "bearer"}})  # pyright: ignore[reportUnknownMemberType] - as above
