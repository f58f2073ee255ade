"""One watcher of runs: what it asks for, what it has subscribed to. Knows JSON-RPC and the service; knows no tornado.

A subscription reads the journal by byte offsets and waits for the watcher after each piece: one that does not read costs one piece of memory, and one that
comes back names the offset that it has reached.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec.structs import replace

from cc_executor.errors import CCExecutorError, ControlFailed, InvalidRequest, InvalidTaskList, RunNotFound
from cc_executor.server.command import command_of
from cc_executor.server.hookstatus import hook_status
from cc_executor.server.lists import PAGE
from cc_executor.server.listwatch import ListWatch
from cc_executor.server.pieces import pieces
from cc_executor.server.refusal import Refused
from cc_executor.server.watch import Watch
from cc_executor.wire import jsonrpc
from cc_executor.wire.jsonrpc import Call, Code, RpcError

if TYPE_CHECKING:
    from cc_executor.server.service import Service

logger = logging.getLogger(__name__)

Kind = TypeVar("Kind", Watch, ListWatch)

SUBSCRIPTIONS: Final = 32  # of one watcher
CALLS: Final = 32  # at work at once, of one watcher; the next message is read when one of them is answered
BATCH_SIZE: Final = 8 * 2**20  # characters of a batch's answers, which are one message; a hundred usual results have half of it
_CODES: Final[tuple[tuple[type[CCExecutorError], Code], ...]] = (
    (RunNotFound, Code.NOT_FOUND),
    (InvalidRequest, Code.INVALID_PARAMS),
    (InvalidTaskList, Code.INVALID_PARAMS),
    (ControlFailed, Code.NOT_NOW),
)
# What each method takes, by name. Not here: what checks its own parameters.
_PARAMS: Final[dict[str, tuple[str, ...]]] = {
    "status": ("id", "offset", "limit"),
    "results": ("id", "offset", "limit"),
    "list": ("limit", "before", "status"),
    "hook_status": ("id",),
    "subscribe": ("id", "stream", "offset"),
    "unsubscribe": ("subscription",),
    "watch": ("id",),
    "page": ("subscription", "view", "before"),
    "answer": ("subscription", "ask", "decision", "text", "answers"),
    "detail": ("subscription", "task"),
}
_COMMANDS: Final = frozenset({"control", "answer"})  # what somebody has said is done, though they go
_NEEDS: Final = {"execute": "execute", "control": "execute", "answer": "execute"}  # the right that a method needs; all others: read


class Session:
    """One watcher.

    Parameters
    ----------
    service : Service
    who : str
        Whose runs.
    may : callable
        Whether the watcher has a right (``read``, ``execute``) now.
    send : callable
        Sends a text and returns when the watcher has taken it. A watcher that is gone raises nothing.
    request : str
        The id under which it is noted.
    """

    def __init__(
        self,
        service: Service,
        *,
        who: str,
        may: Callable[[str], Awaitable[bool]],
        send: Callable[[str | bytes], Awaitable[None]],
        request: str = "",
    ) -> None:
        self._service = service
        self._who = who
        self._request = request
        self._may = may
        self._send_text = send
        self._is_gone = False
        self._writing = asyncio.Lock()
        self._room = asyncio.Semaphore(CALLS)
        self._batch = asyncio.Lock()  # one at a time: each may have so many answers that wait until all are there
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting: set[asyncio.Task[Any]] = set()  # those that start a run at this moment: cancelled, they would end it
        self._obeying: set[asyncio.Task[None]] = set()  # those with a command
        self._subscriptions: dict[int, asyncio.Task[None]] = {}
        self._watches: dict[int, Watch | ListWatch] = {}
        self._methods: dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = {
            "execute": self.execute,
            "control": self.control,
            "status": self.status,
            "results": self.results,
            "list": self.executions,
            "hook_status": self.hook_status,
            "subscribe": self.subscribe,
            "unsubscribe": self.unsubscribe,
            "watch": self.watch,
            "page": self.page,
            "answer": self.answer,
            "detail": self.detail,
        }

    async def take(self, message: str | bytes) -> None:
        """Begin to answer a message; returns when another one may come."""
        await self._room.acquire()
        asked = jsonrpc.parse(message)
        has_command = any(call.method in _COMMANDS for call in asked.calls)
        if self._is_gone and not has_command:  # while it stood in line: nobody would end what it begins
            self._room.release()
            return
        task = self._spawn(self._answer(asked), done=self._room.release)
        if has_command:
            self._obeying.add(task)
            task.add_done_callback(self._obeying.discard)

    def close(self) -> None:
        """The watcher is gone; the runs go on, what is just being started is, and commands are obeyed."""
        self._is_gone = True
        for task in self._tasks - self._starting - self._obeying:
            task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None], *, done: Callable[[], object] = lambda: None) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)

        def ended(which: asyncio.Task[None]) -> None:
            self._tasks.discard(which)
            done()

        task.add_done_callback(ended)
        return task

    async def _answer(self, message: jsonrpc.Message) -> None:
        if not message.is_batch:
            (call,) = message.calls
            if (answer := await self._called(call)) is not None:
                await self._send(json.dumps(answer))
            return
        told: list[str] = []
        size = 0
        async with self._batch:
            for call in message.calls:
                if self._is_gone and call.method not in _COMMANDS:
                    continue
                answer = await self._called(call if size <= BATCH_SIZE else replace(call, error=_too_large()))
                if answer is not None:
                    told.append(json.dumps(answer))
                    size += len(told[-1])
            if told:
                await self._send(f"[{', '.join(told)}]")

    async def _called(self, call: Call) -> dict[str, Any] | None:
        failure: Exception | None = None
        try:
            if call.error is not None:
                raise call.error
            method = self._methods.get(call.method)
            if method is None:
                raise RpcError(Code.METHOD_NOT_FOUND, f"Method not found: {call.method[:100]!r}; there are {', '.join(self._methods)}")
            if not await self._may(_NEEDS.get(call.method, "read")):
                raise RpcError(Code.REFUSED, f"You may not {call.method} here.")
            if unknown := sorted(call.params.keys() - _PARAMS.get(call.method, call.params.keys())):
                there = ", ".join(_PARAMS[call.method])
                raise RpcError(Code.INVALID_PARAMS, f"Invalid params: {call.method} takes no {unknown[0][:100]!r}, but {there}")
            answer = jsonrpc.result(call, await method(call.params))
        except RpcError as wrong:
            failure = Refused(403, "NotAllowed", str(wrong)) if wrong.code is Code.REFUSED else InvalidRequest("")
            answer = jsonrpc.error(call, wrong)
        except Refused as refused:
            failure = refused
            wait = {} if refused.retry_after is None else {"retry_after": refused.retry_after}
            answer = jsonrpc.error(call, RpcError(Code.REFUSED, self._service.mask(str(refused)), {"kind": refused.kind, **wait}))
        except CCExecutorError as wrong:
            failure = wrong
            code = next((code for kind, code in _CODES if isinstance(wrong, kind)), Code.NOT_POSSIBLE)
            problems = [self._service.mask(each) for each in wrong.problems] if isinstance(wrong, InvalidTaskList) else []
            data = {"kind": type(wrong).__name__, **({"problems": problems} if problems else {})}
            answer = jsonrpc.error(call, RpcError(code, self._service.mask(str(wrong)), data))
        except Exception as wrong:  # root of a request: the log has what the client must not see
            failure = wrong
            logger.exception("a call of %s failed", call.method[:100])
            answer = jsonrpc.error(call, RpcError(Code.INTERNAL_ERROR, "Internal error"))
        if call.method in self._methods:
            about = call.params.get("id") or answer.get("result", {}).get("id")
            right = _NEEDS.get(call.method)
            self._service.noted("websocket", call.method, right=right, who=self._who, run=about, failure=failure, request=self._request)
        # What is no request at all is answered, too: its sender cannot know better.
        return None if call.is_notification and call.error is None else answer

    async def _send(self, text: str | bytes) -> None:
        async with self._writing:
            await self._send_text(text)

    # --- methods ---

    async def execute(self, params: dict[str, Any]) -> dict[str, Any]:
        """Start a run: options of a request, and `idempotency_key`."""
        options = dict(params)
        key = _text(options, "idempotency_key", "")
        options.pop("idempotency_key", None)
        task = asyncio.current_task()
        assert task is not None  # of `take`
        self._starting.add(task)
        try:
            run_id, is_new = await self._service.execute(options, who=self._who, key=key)
        finally:
            self._starting.discard(task)
        return {"id": run_id, "new": is_new, **await self._service.place(run_id)}

    async def control(self, params: dict[str, Any]) -> dict[str, Any]:
        """Command a run or a list: `id`, `op`, `pauses`, `task`, `text`, `click`."""
        named = {name: value for name, value in params.items() if name != "id"}
        return await self._service.control(_text(params, "id"), who=self._who, **command_of(named))

    async def status(self, params: dict[str, Any]) -> dict[str, Any]:
        """What a run or a list is doing: `id`; of a list `offset`, `limit`."""
        return await self._service.lookup.status(_text(params, "id"), who=self._who, **_page(params))

    async def results(self, params: dict[str, Any]) -> dict[str, Any]:
        """What a run or a list has made: `id`; of a list `offset`, `limit`."""
        return await self._service.lookup.results(_text(params, "id"), who=self._who, **_page(params))

    async def hook_status(self, params: dict[str, Any]) -> dict[str, Any]:
        """What became of the hooks of a run: `id`."""
        folder = await asyncio.to_thread(self._service.lookup.find, _text(params, "id"), who=self._who)
        return await asyncio.to_thread(hook_status, folder)

    async def executions(self, params: dict[str, Any]) -> dict[str, Any]:
        """Runs, newest first: `limit`, `before`, `status`."""
        look = partial(
            self._service.lookup.executions,
            who=self._who,
            limit=_number(params, "limit", 50, least=1, most=500),
            before=_text(params, "before", ""),
            status=_text(params, "status", ""),
        )
        rows, following = await asyncio.to_thread(look)
        return {"executions": [row.as_dict() for row in rows], "next": following}

    async def subscribe(self, params: dict[str, Any]) -> dict[str, Any]:
        """Have what a run writes sent: `id`, `stream`, `offset`."""
        run_id, stream = _text(params, "id"), _text(params, "stream", "stdout")
        offset = _number(params, "offset", 0, most=10**15)
        service, who = self._service, self._who
        await asyncio.to_thread(service.lookup.piece, run_id, who=who, stream=stream, offset=offset, limit=1)  # what is wrong is said now
        self._check_place()
        number = next(self._numbers)
        self._subscriptions[number] = self._spawn(
            self._feed(number, run_id, stream, offset), done=lambda: self._subscriptions.pop(number, None)
        )
        return {"subscription": number}

    def _check_place(self) -> None:
        """Asked when the place is taken: between that and this, nothing is waited for."""
        if self._is_gone:  # it was asked for beside a command, which is obeyed
            raise RpcError(Code.NOT_NOW, "The socket is closed")
        if len(self._subscriptions) >= SUBSCRIPTIONS:
            raise Refused(429, "TooMany", f"A socket may have {SUBSCRIPTIONS} subscriptions. End one, or open another socket.")

    async def watch(self, params: dict[str, Any]) -> dict[str, Any]:
        """Have the frames of a run's or a list's live view sent: `id`. Ends with `unsubscribe`."""
        watch = await self._service.lookup.watch(_text(params, "id"), who=self._who)
        self._check_place()
        number = next(self._numbers)
        self._watches[number] = watch

        def ended() -> None:
            self._subscriptions.pop(number, None)
            self._watches.pop(number, None)

        self._subscriptions[number] = self._spawn(self._show(number, watch), done=ended)
        return {"subscription": number}

    async def page(self, params: dict[str, Any]) -> dict[str, Any]:
        """Have older lines sent among the frames of a view: `subscription`, `view`, `before`."""
        self._watched(params, Watch).page(_text(params, "view"), _number(params, "before", 0, most=10**15))
        return {}

    async def answer(self, params: dict[str, Any]) -> dict[str, Any]:
        """Answer a question of the agent in a view: `subscription`, `ask`, `decision`, `text`, `answers`."""
        await asyncio.to_thread(self._watched(params, Watch).answer, params)
        return {}

    async def detail(self, params: dict[str, Any]) -> dict[str, Any]:
        """What is inside of a row of a list's view: `subscription`, `task`."""
        return await asyncio.to_thread(self._watched(params, ListWatch).detail, _text(params, "task"))

    def _watched(self, params: dict[str, Any], kind: type[Kind]) -> Kind:
        watch = self._watches.get(_number(params, "subscription", 0, most=10**9))
        if not isinstance(watch, kind):
            raise RpcError(Code.INVALID_PARAMS, "Invalid params: there is no such subscription")
        return watch

    async def _show(self, number: int, watch: Watch | ListWatch) -> None:
        try:
            async with aclosing(watch.frames()) as frames:
                async for content, body in frames:
                    await self._send(jsonrpc.notification("frame", {"subscription": number, "content": content, "body": body.decode()}))
        except CCExecutorError as gone:  # its folder was removed
            await self._send(jsonrpc.notification("end", {"subscription": number, "error": str(gone)}))

    async def unsubscribe(self, params: dict[str, Any]) -> dict[str, Any]:
        """Have no more of it sent: `subscription`."""
        task = self._subscriptions.get(_number(params, "subscription", 0, most=10**9))
        if task is None:
            raise RpcError(Code.INVALID_PARAMS, "Invalid params: there is no such subscription")
        task.cancel()
        return {}

    async def _feed(self, number: int, run_id: str, stream: str, offset: int) -> None:
        sequence = itertools.count(1)
        about = {"subscription": number, "id": run_id, "stream": stream}
        try:
            async with self._service.lookup.watching(run_id, stream) as tail, aclosing(pieces(tail, offset)) as told:
                async for piece in told:
                    if piece is not None:  # else a sign of life, which pings are here
                        offset = piece.next_offset
                        await self._send(jsonrpc.notification_with("output", {**about, "seq": next(sequence)}, piece.text))
            await self._send(jsonrpc.notification("end", {**about, "seq": next(sequence), "next_offset": offset}))
        except CCExecutorError as gone:  # its folder was removed
            await self._send(jsonrpc.notification("end", {**about, "seq": next(sequence), "next_offset": offset, "error": str(gone)}))


def _too_large() -> RpcError:
    said = f"The answers before this one have more than {BATCH_SIZE:,} characters, so it was not done. Send the batch in parts."
    return RpcError(Code.REFUSED, said, {"kind": "TooLarge"})


def _text(params: dict[str, Any], name: str, default: str | None = None) -> str:
    value = params.get(name, default)
    if not isinstance(value, str):
        raise RpcError(Code.INVALID_PARAMS, f"Invalid params: {name} must be a string")
    return value


def _page(params: dict[str, Any]) -> dict[str, int]:
    """Which tasks of a list are asked for."""
    return {"offset": _number(params, "offset", 0, most=10**5), "limit": _number(params, "limit", PAGE, least=1, most=500)}


def _number(params: dict[str, Any], name: str, default: int, *, least: int = 0, most: int) -> int:
    value = params.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise RpcError(Code.INVALID_PARAMS, f"Invalid params: {name} must be a whole number from {least} to {most}")
    return value
