"""The Model Context Protocol over standard input and output, as a process of its own: `cc-executor mcp`. Knows the SDK; knows no tornado.

Either the tools over this machine's runs, or a relay to a Jupyter server, whose token is in the environment. Standard output is the protocol's alone.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast
from urllib.parse import urlsplit

import anyio

from cc_executor.errors import CCExecutorError
from cc_executor.server.owners import Owners
from cc_executor.store.named import is_folder

if TYPE_CHECKING:
    import httpx2
    from mcp.shared.message import SessionMessage

TOKEN: Final = ("CC_EXECUTOR_TOKEN", "JUPYTER_TOKEN")  # variables, the first of which counts
ENDPOINT: Final = "cc-executor/mcp"
HEALTH: Final = "cc-executor/api/v1/health"
OK: Final = 200
ANSWER_LIMIT: Final = 16 * 2**20  # bytes of one answer of a server
CONNECT: Final = 10.0  # seconds
SILENCE: Final = 120.0  # seconds; a server that is well says something every 15
WRONG_CALL: Final = 2  # exit codes, as of every command
NOT_POSSIBLE: Final = 1
NOT_FOUND: Final = 404  # to a request of a session: the server does not know it any more (protocol 2025-11-25, transports)
SESSION: Final = "mcp-session-id"
_VERSION: Final = "mcp-protocol-version"


class ServerUnreachable(CCExecutorError):
    """The server that is relayed to is not there, or not for us."""


class _Unnamed(Owners):
    """Runs that are started here are like those of a terminal: whose they are, is decided by a server that shows them."""

    def claim(self, run_id: str, owner: str) -> None:
        """Write nothing down."""
        del run_id, owner


async def local(root: Path, environ: Mapping[str, str]) -> None:
    """Serve the runs of this machine until standard input ends; runs go on."""
    from mcp.server.stdio import stdio_server

    from cc_executor.server.mcp import Caller, Runs
    from cc_executor.server.service import Rules, Service
    from cc_executor.store.home import StateHome, state_path

    home = StateHome(state_path(environ))
    service = Service(home=home, environ=environ, owners=_Unnamed(home.root, by_name=False), rules=Rules(), root=root)

    async def may(_: str) -> bool:
        return True

    server = Runs(service, Caller("", may)).server()
    try:
        async with stdio_server() as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(CONNECT):
            await service.aclose()


async def relay(url: str, token: str) -> None:
    """Hand every message on to a server and back, until standard input ends."""
    import httpx2
    from mcp.client.streamable_http import streamable_http_client
    from mcp.server.stdio import stdio_server

    endpoint = f"{url.rstrip('/')}/{ENDPOINT}"
    timeout = httpx2.Timeout(CONNECT, read=SILENCE)

    async def still_known(answer: httpx2.Response) -> None:
        if answer.status_code == NOT_FOUND and SESSION in answer.request.headers and answer.request.method != "DELETE":
            _leave(f"The server at {url} was started anew, or has closed this session: start this command again.")

    hooks = {"response": [still_known]}
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=timeout, event_hooks=hooks) as http:
        await _reached(http, url)
        async with (
            stdio_server() as (from_client, to_client),
            _ended_with(url),
            streamable_http_client(endpoint, http_client=http, max_sse_event_size=ANSWER_LIMIT) as (from_server, to_server),
            anyio.create_task_group() as tasks,
        ):
            known = _Handshake()

            async def back() -> None:
                async for message in from_server:
                    if not isinstance(message, Exception):  # a line of the server that was no message
                        await to_client.send(known.back(message))

            tasks.start_soon(back)
            async for message in from_client:
                if isinstance(message, Exception):
                    _say(f"cc-executor mcp: a line that is no message was left out ({type(message).__name__})")
                elif (refused := known.refused(message)) is not None:
                    await to_client.send(refused)
                else:
                    await to_server.send(known.on(message))
            tasks.cancel_scope.cancel()


async def _reached(http: httpx2.AsyncClient, url: str) -> None:
    """Make sure that a server is there, and takes the token.

    Raises
    ------
    ServerUnreachable
    """
    import httpx2

    try:
        answer = await http.get(f"{url.rstrip('/')}/{HEALTH}")
    except (httpx2.TransportError, httpx2.InvalidURL) as error:
        raise ServerUnreachable(_unreachable(url, error)) from error
    if answer.status_code in {401, 403}:
        raise ServerUnreachable(f"The server at {url} does not take the token: put the right one into {TOKEN[0]}.")
    if answer.status_code != OK:
        raise ServerUnreachable(
            f"There is no cc-executor at {url} (HTTP {answer.status_code}): mend the address, or install 'cc-executor[mcp]' where the server runs."
        )


@asynccontextmanager
async def _ended_with(url: str) -> AsyncGenerator[None]:
    """A block that lasts as long as the server can be reached; then this process ends, and its client sees that."""
    import httpx2

    try:
        yield
    except* httpx2.TransportError as gone:
        _leave(_unreachable(url, next(iter(_leaves(gone)))))


def _leave(why: str) -> NoReturn:
    """End this process: its client sees that, and has no other way to learn that nothing will be answered any more."""
    _say(why)
    os._exit(NOT_POSSIBLE)  # a thread waits for a line of standard input, and nobody can take that back


def _unreachable(url: str, error: BaseException) -> str:
    return f"The server at {url} cannot be reached ({type(error).__name__}): start it, or mend the address."


def _leaves(group: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(cast("BaseExceptionGroup[Any]", each))
        else:
            yield each


class _Handshake:
    """What client and server agree on in passing, which HTTP wants in a header of every request."""

    def __init__(self) -> None:
        self._opening: Any = None
        self._version = ""

    def on(self, message: SessionMessage) -> SessionMessage:
        """A message for the server."""
        from mcp.shared.message import ClientMessageMetadata, SessionMessage
        from mcp_types import JSONRPCRequest

        inner = message.message
        if isinstance(inner, JSONRPCRequest) and inner.method == "initialize":
            self._opening = inner.id
            return message
        headers = {_VERSION: self._version} if self._version else None
        return SessionMessage(inner, metadata=ClientMessageMetadata(headers=headers))

    def back(self, message: SessionMessage) -> SessionMessage:
        """A message for the client."""
        from mcp_types import JSONRPCResponse

        inner = message.message
        if isinstance(inner, JSONRPCResponse) and inner.id == self._opening:
            self._version = str(inner.result.get("protocolVersion", ""))
        return message

    def refused(self, message: SessionMessage) -> SessionMessage | None:
        """The answer to a client that would begin without a handshake: over a relay there is one, and such clients know it, too."""
        from mcp.shared.message import SessionMessage
        from mcp_types import METHOD_NOT_FOUND, ErrorData, JSONRPCError, JSONRPCRequest

        inner = message.message
        if isinstance(inner, JSONRPCRequest) and inner.method == "server/discover":
            return SessionMessage(
                JSONRPCError(jsonrpc="2.0", id=inner.id, error=ErrorData(code=METHOD_NOT_FOUND, message="Method not found"))
            )
        return None


def _serve(work: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
    """Do the work until the client is gone; that nobody reads the answers any more is its end, too."""
    try:
        anyio.run(work, *arguments)
    except* BrokenPipeError:
        pass


def _is_address(url: str) -> bool:
    """Whether that can be the address of a server; that one is there says the first request."""
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and parts.port != 0
    except ValueError:  # a port beyond all, or half a pair of brackets
        return False


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until standard input ends; returns the exit code."""
    parser = argparse.ArgumentParser(prog="cc-executor mcp")
    parser.add_argument("--url", default="")
    parser.add_argument("--cwd", default=".")
    given = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends it at once, though a thread waits for standard input; what was started goes on
    if find_spec("mcp") is None:
        _say("The MCP SDK is not installed here: pip install 'cc-executor[mcp]'.")
        return NOT_POSSIBLE
    try:
        if not given.url:
            root = Path(os.path.abspath(os.path.expanduser(given.cwd)))
            if not is_folder(root):
                _say(f"{root} is no folder: name one with --cwd.")
                return WRONG_CALL
            _serve(local, root, dict(os.environ))
            return 0
        token = next((value for name in TOKEN if (value := os.environ.get(name))), "")
        if not _is_address(given.url) or not token.isascii() or not token:  # it goes into a header
            _say(f"Give the server's address as --url http://HOST:PORT/, and its token in the environment as {TOKEN[0]}.")
            return WRONG_CALL
        _serve(relay, given.url, token)
    except CCExecutorError as error:
        _say(str(error))
        return NOT_POSSIBLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
