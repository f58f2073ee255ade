"""The runs over a WebSocket, as JSON-RPC 2.0. Knows tornado and jupyter_server's conventions; what is said is `cc_executor.server.session`'s."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from jupyter_server.auth.decorator import ws_authenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from jupyter_server.utils import ensure_async
from tornado import web
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from cc_executor.server.authorizer import RESOURCE, known_now, name_of
from cc_executor.server.trace import Traced

if TYPE_CHECKING:
    from cc_executor.server.service import Service
    from cc_executor.server.session import Session

PATH: Final = "/cc-executor/ws"
MESSAGE_LIMIT: Final = 2**20  # bytes; a prompt that is larger goes over REST


class RunsSocket(Traced, WebSocketMixin, JupyterHandler, WebSocketHandler):  # pyright: ignore[reportIncompatibleMethodOverride] - jupyter_server's own mixture
    """One client.

    Methods: ``execute`` (options of a request), ``control`` (id, op, pauses; for lists task, text, click), ``status`` and ``results`` (id; of lists offset,
    limit), ``list`` (limit, before, status), ``hook_status`` (id), ``subscribe`` (id, stream, offset), ``unsubscribe`` (subscription). Notifications:
    ``output`` and ``end``, each with the subscription and a sequence number without gaps.
    """

    auth_resource = RESOURCE
    door = "websocket"
    route = PATH
    _track_activity = False
    _session: Session | None = None

    @property
    def ping_interval(self) -> float:
        """Milliseconds between pings, in jupyter_server's own count (2.21). Proxies close what is silent for a minute."""
        return 1000.0 * self.settings["cc_executor_ping_interval"]

    @property
    def max_message_size(self) -> int:
        """Bytes; a larger message closes the socket."""
        return MESSAGE_LIMIT

    @ws_authenticated
    async def get(self, *arguments: Any, **more: Any) -> None:
        """Open the socket for somebody who may look."""
        if not await self._may("read"):
            raise web.HTTPError(403)
        from cc_executor.server.session import Session

        service = cast("Callable[[], Service]", self.settings["cc_executor_service"])()
        self._session = Session(service, who=name_of(self, service), may=self._may, send=self._say, request=self.request_id)
        opened: Any = super().get(*arguments, **more)
        await ensure_async(opened)

    async def _may(self, action: str) -> bool:
        user = await known_now(self)
        return user is not None and bool(await ensure_async(self.authorizer.is_authorized(self, user, action, RESOURCE)))

    async def _say(self, text: str | bytes) -> None:
        try:
            await self.write_message(text)  # waits until the client has taken it
        except WebSocketClosedError:
            return

    async def on_message(self, message: str | bytes) -> None:
        """Take a message; tornado reads the next one when this returns."""
        assert self._session is not None  # made before the socket was opened
        await self._session.take(message)

    def on_close(self) -> None:
        """The client is gone; its runs go on."""
        if self._session is not None:
            self._session.close()
