"""The runs over HTTP. Knows tornado and jupyter_server's conventions; what is done is `cc_executor.server.service`'s.

Every method is authenticated and authorized with our own resource, each by itself: a decorated method on a base class would authorize every class that
inherits it with the first one's resource. A run that is somebody else's is not found.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, cast

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.extension.handler import ExtensionHandlerMixin
from tornado import web
from tornado.iostream import StreamClosedError

from cc_executor import __version__
from cc_executor.errors import CCExecutorError, InvalidRequest, InvalidTaskList
from cc_executor.server.authorizer import ADMIN_RESOURCE, RESOURCE, name_of
from cc_executor.server.command import command_of
from cc_executor.server.pieces import PIECE, pieces, shown
from cc_executor.server.refusal import Refused, told_as
from cc_executor.server.trace import Nowhere, Traced

if TYPE_CHECKING:
    from cc_executor.server.service import Service
    from cc_executor.server.tail import Tail

BASE: Final = "/cc-executor/api/v1"
BODY_LIMIT: Final = 24 * 1024 * 1024  # bytes: a prompt of 10 MB in JSON
PAGE: Final = 50  # runs
PAGE_LIMIT: Final = 500
PIECE_LIMIT: Final = 1024 * 1024
DIGITS: Final = 15
_ID: Final = "([0-9a-f]{26}|[0-9a-f]{20}-[0-9]{1,6})"  # of a run, of a task list
_LOGIN: Final = frozenset({"token", "_xsrf"})  # in an address these are jupyter_server's
_GROUP: Final = re.compile(r"\([^)]*\)")

P = ParamSpec("P")


class _Base(Traced, ExtensionHandlerMixin, JupyterHandler):  # pyright: ignore[reportIncompatibleVariableOverride] - jupyter_server's own mixin
    """What all have: the service, whose request it is, and errors as JSON that says no more than it should."""

    auth_resource = RESOURCE
    _track_activity = False  # looking keeps no server alive; runs do

    @property
    def service(self) -> Service:
        return cast("Callable[[], Service]", self.settings["cc_executor_service"])()

    @property
    def who(self) -> str:
        return name_of(self, self.service)

    def body(self) -> dict[str, Any]:
        """The request's body, a JSON object. Raises `InvalidRequest`."""
        if len(self.request.body) > BODY_LIMIT:
            raise Refused(413, "TooLarge", f"The request is larger than {BODY_LIMIT:,} bytes.")
        try:
            value: Any = json.loads(self.request.body or b"{}")
        except ValueError:
            raise InvalidRequest("The body is not JSON. Send an object, in UTF-8.") from None
        except RecursionError:
            raise InvalidRequest("The body holds objects within objects to a depth that cannot be read. Make it flatter.") from None
        if not isinstance(value, dict):
            raise InvalidRequest("The body is not a JSON object.")
        return cast("dict[str, Any]", value)

    def number(self, name: str, default: int, *, most: int) -> int:
        """A number of the query. Raises `InvalidRequest`."""
        text = self.get_query_argument(name, "") or ""
        if not text:
            return default
        number = _whole(text)
        if number is None or number > most:
            raise InvalidRequest(f"{name} must be a number from 0 to {most:,} (given: {text[:40]!r}).")
        return number

    def check_query(self) -> None:
        """Raises `InvalidRequest` for a parameter that this address does not take: who has misspelled a filter would be told of everything."""
        # JupyterLab's own client adds the time to an address, as a name without a value.
        given = {name for name, values in self.request.query_arguments.items() if any(values)} - _LOGIN
        if not given:
            return
        from cc_executor.server.openapi import query_names

        known = query_names(self.route)
        if unknown := sorted(given - known):
            said = f"It takes {', '.join(sorted(known))}" if known else "It takes none"
            raise InvalidRequest(f"This address takes no parameter {unknown[0][:100]!r}. {said}.")

    def page(self, execution: str) -> dict[str, int]:
        """Which tasks of a list are asked for; a run has none. Raises `InvalidRequest`."""
        if "-" not in execution:
            return {}
        return {"offset": self.number("offset", 0, most=10**5), "limit": max(1, self.number("limit", 100, most=PAGE_LIMIT))}

    def answer(self, value: object, status: int = 200) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        if isinstance(value, dict):
            self.about = str(cast("dict[str, Any]", value).get("id", ""))
        self.finish(json.dumps(value, ensure_ascii=True))  # pyright: ignore[reportUnknownMemberType] - tornado says `dict` of nothing

    def refuse(self, status: int, kind: str, message: str, *, problems: tuple[str, ...] = ()) -> None:
        self.kind = kind
        more = {"problems": problems} if problems else {}
        self.answer({"error": {"kind": kind, "message": message, **more}}, status)


class Api(_Base, APIHandler):  # pyright: ignore[reportIncompatibleVariableOverride] - as above
    """A handler whose answers are JSON."""


def endpoint(
    action: str, resource: str = RESOURCE
) -> Callable[[Callable[Concatenate[Any, P], Awaitable[None]]], Callable[Concatenate[Any, P], Awaitable[None]]]:
    """A method that somebody who is known and may do `action` can call. Errors of ours are answers; all others are the server's to log, and say nothing."""

    def decorate(method: Callable[Concatenate[Any, P], Awaitable[None]]) -> Callable[Concatenate[Any, P], Awaitable[None]]:
        @functools.wraps(method)
        async def whole(self: Any, *arguments: P.args, **more: P.kwargs) -> None:
            try:
                self.check_query()
                await method(self, *arguments, **more)
            except Refused as refused:
                if refused.retry_after is not None:
                    self.set_header("Retry-After", str(refused.retry_after))
                self.reason = str(refused)
                self.refuse(refused.status, refused.kind, self.service.mask(str(refused)))
            except CCExecutorError as error:
                problems = tuple(self.service.mask(each) for each in error.problems) if isinstance(error, InvalidTaskList) else ()
                self.refuse(*told_as(error), self.service.mask(str(error)), problems=problems)

        allowed: Callable[[object], Any] = authorized(action, resource=resource)
        return cast("Callable[Concatenate[Any, P], Awaitable[None]]", web.authenticated(allowed(whole)))

    return decorate


class _Execute(Api):
    """Start a run."""

    _track_activity = True

    @endpoint("execute")
    async def post(self) -> None:
        run_id, is_new = await self.service.execute(self.body(), who=self.who, key=self.request.headers.get("Idempotency-Key", ""))
        self.set_header("Location", f"{self.base_url.rstrip('/')}{BASE}/executions/{run_id}/status")
        self.answer({"id": run_id, "execution_id": run_id, "new": is_new, **await self.service.place(run_id)}, 202)


class _Executions(Api):
    """The caller's runs, newest first."""

    @endpoint("read")
    async def get(self) -> None:
        limit = self.number("limit", PAGE, most=PAGE_LIMIT)
        before, status = self.get_query_argument("before", "") or "", self.get_query_argument("status", "") or ""
        rows, following = await asyncio.to_thread(
            self.service.lookup.executions, who=self.who, limit=max(1, limit), before=before, status=status
        )
        self.answer({"executions": [row.as_dict() for row in rows], "next": following})


class _Everybody(Api):
    """Everybody's runs on this server, newest first, with their owners: for who may oversee them."""

    @endpoint("read", ADMIN_RESOURCE)
    async def get(self) -> None:
        if not self.service.oversees(self.who):  # an authorizer that allows everything is not asked by name
            raise Refused(403, "NotAllowed", "Other people's runs are for an admin of this server.")
        limit, before = self.number("limit", PAGE, most=PAGE_LIMIT), self.get_query_argument("before", "") or ""
        rows, following = await asyncio.to_thread(
            self.service.lookup.executions, who=self.who, limit=max(1, limit), before=before, everybody=True
        )
        self.answer({"executions": [{**row.as_dict(), "owner": self.service.owner(row.id)} for row in rows], "next": following})


class _Execution(Api):
    """One run, to be ended."""

    @endpoint("execute")
    async def delete(self, run_id: str) -> None:
        self.answer(await self.service.control(run_id, "cancel", who=self.who), 202)


class _Status(Api):
    """What a run is doing."""

    @endpoint("read")
    async def get(self, run_id: str) -> None:
        self.answer(await self.service.lookup.status(run_id, who=self.who, **self.page(run_id)))


class _Results(Api):
    """What a run has made."""

    @endpoint("read")
    async def get(self, run_id: str) -> None:
        self.answer(await self.service.lookup.results(run_id, who=self.who, **self.page(run_id)))


class _Receipt(Api):
    """The sealed receipt."""

    @endpoint("read")
    async def get(self, run_id: str) -> None:
        receipt = await self.service.lookup.receipt(run_id, who=self.who)
        if receipt is None:
            raise Refused(409, "NotEnded", "The run has not ended yet: there is no receipt.")
        self.answer(receipt.model_dump(mode="json"))


class _Control(Api):
    """A command for a run."""

    _track_activity = True

    @endpoint("execute")
    async def post(self, run_id: str) -> None:
        self.answer(await self.service.control(run_id, who=self.who, **command_of(self.body())))


class _Events(_Base):
    """What a run has written, byte for byte: a piece, or a stream of server-sent events that goes on until the run has ended."""

    @endpoint("read")
    async def get(self, run_id: str) -> None:
        stream = self.get_query_argument("stream", "stdout") or "stdout"
        offset = self.number("offset", 0, most=10**15)
        is_stream = "text/event-stream" in self.request.headers.get("Accept", "")
        last = _whole(self.request.headers.get("Last-Event-ID", "")) if is_stream else None
        offset = offset if last is None else last
        limit = 1 if is_stream else max(1, self.number("limit", PIECE, most=PIECE_LIMIT))
        # Of a stream, too: what is wrong is said before it begins.
        piece = await asyncio.to_thread(self.service.lookup.piece, run_id, who=self.who, stream=stream, offset=offset, limit=limit)
        if not is_stream:
            self.answer(shown(piece))
            return
        async with self.service.lookup.watching(run_id, stream) as tail:
            await self._stream(tail, offset)

    async def _stream(self, tail: Tail, offset: int) -> None:
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("Cache-Control", "no-store")
        try:
            async with aclosing(pieces(tail, offset)) as told:
                async for piece in told:
                    if piece is None:
                        await self._say(b":\n\n")
                    else:
                        offset = piece.next_offset
                        await self._say(b"id: %d\ndata: %b\n\n" % (offset, piece.text))
            await self._say(b"event: end\nid: %d\ndata: {}\n\n" % offset)
        except (StreamClosedError, CCExecutorError):  # the client is gone, or the run's folder
            return
        await self.finish()  # pyright: ignore[reportUnknownMemberType] - as above

    async def _say(self, text: bytes) -> None:
        """Write and wait for the client: the journal is the buffer."""
        self.write(text)  # pyright: ignore[reportUnknownMemberType] - as above
        await self.flush()


def _whole(text: str) -> int | None:
    """A number of at most `DIGITS` digits, which every file's size has."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= DIGITS else None


class _Estimate(Api):
    """What a run or a list is expected to take and to cost. Nothing is started."""

    starts_nothing = True

    @endpoint("read")
    async def post(self) -> None:
        self.answer(await asyncio.to_thread(self.service.foresight.estimate, self.body(), who=self.who))


class _Validate(Api):
    """What is wrong with a request or a list, and what may be. Nothing is started."""

    starts_nothing = True

    @endpoint("read")
    async def post(self) -> None:
        self.answer(await asyncio.to_thread(self.service.foresight.validate, self.body(), who=self.who))


class _History(Api):
    """The caller's own runs that have ended, newest first."""

    @endpoint("read")
    async def get(self) -> None:
        names = self.request.query_arguments.keys() - _LOGIN - {"limit", "before"}
        filters = {name: value for name in names if (value := self.get_query_argument(name))}
        limit, before = self.number("limit", PAGE, most=PAGE_LIMIT), self.get_query_argument("before", "") or ""
        look = functools.partial(self.service.foresight.history, filters, who=self.who, limit=max(1, limit), before=before)
        self.answer(await asyncio.to_thread(look))


class _Health(Api):
    """Whether runs can be started."""

    @endpoint("read")
    async def get(self) -> None:
        await asyncio.to_thread(self.service.home.prepare)
        self.answer({"ok": True, "version": __version__})


class _AuthStatus(Api):
    """Whether the agent is logged in, as it says itself."""

    @endpoint("read")
    async def get(self) -> None:
        self.answer(await self.service.login())


class _OpenApi(Api):
    """What there is, in a form that programs read."""

    @endpoint("read")
    async def get(self) -> None:
        from cc_executor.server import openapi

        self.answer(openapi.document([handler for _, handler in routes()], base=f"{self.base_url.rstrip('/')}{BASE}"))


ROUTES: Final[tuple[tuple[str, type[_Base]], ...]] = (
    ("/execute", _Execute),
    ("/executions", _Executions),
    ("/admin/executions", _Everybody),
    (f"/executions/{_ID}", _Execution),
    (f"/executions/{_ID}/status", _Status),
    (f"/executions/{_ID}/results", _Results),
    (f"/executions/{_ID}/receipt", _Receipt),
    (f"/executions/{_ID}/events", _Events),
    (f"/executions/{_ID}/control", _Control),
    ("/estimate", _Estimate),
    ("/validate", _Validate),
    ("/history", _History),
    ("/health", _Health),
    ("/auth/status", _AuthStatus),
    ("/openapi.json", _OpenApi),
)


def routes() -> tuple[tuple[str, type[_Base]], ...]:
    """Patterns below the base of the interface, and who answers."""
    from cc_executor.server.admin import ROUTES as ADMIN

    return (*ROUTES, *ADMIN)


def handlers() -> list[tuple[str, type[Traced]]]:
    """Patterns below the server's base URL, and who answers; what is nowhere is said in the same form."""
    for pattern, handler in routes():
        handler.route = _GROUP.sub("{id}", pattern)
    return [*((f"{BASE}{pattern}", handler) for pattern, handler in routes()), (f"{BASE.rpartition('/')[0]}(?:/.*)?", Nowhere)]
