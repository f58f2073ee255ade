"""An ASGI application answered from inside tornado: one request of theirs is one call of it. Knows both conventions and nothing of ours.

So the protocol's own SDK, which speaks ASGI, has the server's port, login and loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from jupyter_server.base.handlers import JupyterHandler
from tornado.iostream import StreamClosedError

Scope = MutableMapping[str, Any]
Application = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


async def answered(handler: JupyterHandler, application: Application, gone: asyncio.Event, **more: Any) -> None:
    """Let `application` answer the request of `handler`.

    Parameters
    ----------
    handler : JupyterHandler
        Whose request is whole already (tornado has read the body).
    application : callable
        ASGI 3.
    gone : asyncio.Event
        Set when the client closes the connection.
    **more
        Further keys of the scope.
    """
    request = handler.request
    body: list[bytes] = [request.body]
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.protocol,
        "path": request.path,
        "raw_path": request.path.encode(),
        "root_path": "",
        "query_string": request.query.encode(),
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.get_all()],
        "client": (request.remote_ip, 0),
        "server": (request.host_name, None),
        **more,
    }

    async def receive() -> dict[str, Any]:
        if body:
            return {"type": "http.request", "body": body.pop(), "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            handler.set_status(message["status"])
            handler.clear_header("Content-Type")
            for name, value in message.get("headers", ()):
                if name.lower() not in {b"content-length", b"transfer-encoding"}:  # tornado counts for itself
                    handler.add_header(name.decode("latin-1"), value.decode("latin-1"))
            if dict(message.get("headers", ())).get(b"content-type", b"").startswith(b"text/event-stream"):
                await flushed()  # its first event may be long in coming
        elif message["type"] == "http.response.body" and message.get("body"):
            handler.write(message["body"])  # pyright: ignore[reportUnknownMemberType] - tornado says `dict` of nothing
            await flushed()

    async def flushed() -> None:
        with suppress(StreamClosedError):  # the application is told by `receive`
            await handler.flush()

    await application(scope, receive, send)
    with suppress(StreamClosedError):
        await handler.finish()  # pyright: ignore[reportUnknownMemberType] - as above
