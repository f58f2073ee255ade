"""The tools of our own MCP endpoint, in the server of jupyter-server-mcp, for who has both: its entry point group ``jupyter_server_mcp.tools``.

That server listens on a port of its own and takes everybody who reaches it: there is no login. So the operating system is asked who calls, and only a
process of the user whom this Jupyter server runs as is served, for it could do all of it without us. Where a server tells several people apart by their
names, that says nothing about who of them it is: there the tools are not offered, and `cc_executor.server.mcphttp` asks for a token.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import socket
import struct
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cc_executor.server.app import running_here

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cc_executor.server.app import CCExecutorServer
    from cc_executor.server.mcp import Runs

logger = logging.getLogger(__name__)

PREFIX: Final = "cc_"  # the names are beside those of everybody else
_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_NO_ORIGIN: Final = "A page in a browser may not call these tools."
_STRANGER: Final = (
    "These tools serve processes of the user whom the Jupyter server runs as, and this caller is none, or cannot be recognised here. "
    "Use the server's own address with its token: /cc-executor/mcp."
)


def tools() -> list[str]:
    """What jupyter-server-mcp registers, in its notation; called by it once, when the Jupyter server starts."""
    app = running_here()
    if app is None:
        return []
    why = _unfit(app)
    if why:
        logger.warning("The tools of cc_executor are not in the server of jupyter-server-mcp: %s", why)
        return []
    return [f"{__name__}:{PREFIX}{name}" for name in _runs().tools]


def _unfit(app: CCExecutorServer) -> str:
    if app.service().is_by_name:
        return "it knows no logins, and this server tells people apart. They are at /cc-executor/mcp, with a token."
    if not _TABLES[0].exists():
        return "who calls it can be found out on Linux alone. They are at /cc-executor/mcp, with a token."
    try:
        _runs()
    except ImportError as error:
        return f"they need mcp 2.3 or later ({error}): pip install 'cc-executor[mcp]'."
    return ""


@cache
def _runs() -> Runs:
    from cc_executor.server.mcp import Caller, Runs

    app = running_here()
    if app is None:
        raise LookupError("the extension cc_executor does not run here")
    return Runs(app.service(), Caller("", _may))


def __getattr__(name: str) -> Callable[..., Any]:
    """The functions that `tools` names, made from the one table of tools."""
    tool = _runs().tools.get(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None
    if tool is None:
        raise AttributeError(name)
    return _function(name, tool.about, tool.takes, tool.required)


def _function(name: str, about: str, takes: Mapping[str, Any], required: tuple[str, ...]) -> Callable[..., Any]:
    from mcp_types import CallToolResult
    from pydantic import WithJsonSchema

    async def call(**given: Any) -> Any:
        return await _called(name.removeprefix(PREFIX), {key: value for key, value in given.items() if value is not None})

    kinds: dict[str, Any] = {key: Annotated[Any, WithJsonSchema(dict(schema))] for key, schema in takes.items()}
    parameters = [
        inspect.Parameter(
            key, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=inspect.Parameter.empty if key in required else None
        )
        for key, kind in kinds.items()
    ]
    described: Any = call
    described.__name__ = described.__qualname__ = name
    described.__doc__ = about
    described.__signature__ = inspect.Signature(parameters, return_annotation=CallToolResult)
    described.__annotations__ = {**kinds, "return": CallToolResult}
    return described


async def _called(name: str, given: dict[str, Any]) -> Any:
    from mcp_types import CallToolRequestParams

    context: Any = _fastmcp().get_context().request_context
    # The SDK's own context, which fastmcp names its escape hatch: questions to the client's user, progress and log levels are there.
    return await _runs().call_tool(context._srctx, CallToolRequestParams(name=name, arguments=given))


def _fastmcp() -> Any:
    """What jupyter-server-mcp is built upon: where these functions are called, it is there."""
    return importlib.import_module("fastmcp.server.dependencies")


# --- who calls --------------------------------------------------------------------------------------------------------


async def _may(_: str) -> bool:
    """Whether the request comes from a process of this user. Raises `Refused`."""
    from cc_executor.server.refusal import Refused

    request: Any = _fastmcp().get_http_request()
    if "origin" in request.headers:
        raise Refused(403, "NotAllowed", _NO_ORIGIN)
    client, server = request.scope.get("client"), request.scope.get("server")
    if not client or not server or owner_of_peer(tuple(client[:2]), tuple(server[:2])) != os.getuid():
        raise Refused(403, "NotAllowed", _STRANGER)
    return True


def owner_of_peer(client: tuple[str, int], server: tuple[str, int], *, tables: tuple[Path, ...] = _TABLES) -> int | None:
    """The id of the user whose process holds the other end of a TCP connection on this machine; None if that cannot be known.

    Parameters
    ----------
    client, server : (str, int)
        Address and port of the other end, and of ours.
    tables : tuple of Path
        The kernel's connections: proc(5), ``/proc/net/tcp``.
    """
    try:
        ends = (_written(*client), _written(*server))
    except ValueError:
        return None
    for table in tables:
        try:
            lines = table.read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if (_plain(fields[1]), _plain(fields[2])) == ends and fields[9] != "0":  # 0: nobody holds it any more, and the user is not told
                return int(fields[7])
    return None


def _written(address: str, port: int) -> tuple[str, int]:
    ip = ip_address(address)
    return str(getattr(ip, "ipv4_mapped", None) or ip), port


def _plain(field: str) -> tuple[str, int]:
    """An end of a connection as the kernel writes it: words of the machine's byte order in hexadecimal."""
    words, _, port = field.partition(":")
    packed = b"".join(struct.pack("=I", int(words[place : place + 8], 16)) for place in range(0, len(words), 8))
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6  # noqa: PLR2004 - bytes of an IPv4 address
    return _written(socket.inet_ntop(family, packed), int(port, 16))
