"""What a client may ask for, as a table. Knows the fields of a request; carries nothing out itself."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from cc_executor.shim.door import Connection
    from cc_executor.shim.loop import Shim

    Request = dict[str, object]
    Reply = dict[str, Any] | None

NAME_LENGTH: Final = 200  # characters of `by` and `reason`; both go into records
NOT_YOURS: Final = "a process of the run itself cannot answer for its user"
NOTE_LENGTH: Final = 2000  # characters of a question and of its answer in their record; the streams have all of both


def refused(why: str) -> dict[str, Any]:
    """An answer that says no."""
    return {"ok": False, "error": why}


def _name(request: Request, field: str, default: str = "", *, limit: int = NAME_LENGTH) -> str:
    value = request.get(field)
    if not isinstance(value, str) or not value:
        return default
    return value[:limit].encode("utf-8", "replace").decode()  # JSON can carry halves of surrogates, records cannot


def _status(shim: Shim, _request: Request, _connection: Connection) -> Reply:
    return shim.status()


def _is_late(shim: Shim, request: Request) -> bool:
    """Whether it was asked for before a pause that has been made since: a click that comes twice, or after a kernel's long silence."""
    pauses = request.get("pauses")
    return type(pauses) is int and pauses != shim.pauses


def _pause(shim: Shim, request: Request, connection: Connection) -> Reply:
    if _is_late(shim, request):
        return shim.status()
    return shim.pause(_name(request, "by"), connection)


def _resume(shim: Shim, request: Request, _connection: Connection) -> Reply:
    if "pauses" in request and (shim.is_pausing or _is_late(shim, request)):
        return shim.status()
    return shim.resume(_name(request, "by"))


def _cancel(shim: Shim, request: Request, _connection: Connection) -> Reply:
    shim.stop(_name(request, "reason", "cancel"), _name(request, "by"), at_once=request.get("now") is True)
    return shim.status()


def _stdin(shim: Shim, request: Request, connection: Connection) -> Reply:
    data = request.get("data", "")
    if shim.spec.talk is not None and shim.is_own(connection.peer):
        return refused(NOT_YOURS)
    if not isinstance(data, str):
        return refused("`data` must be text")
    problem = shim.stdin.write(data.encode("utf-8", "replace"), close=request.get("close") is True)
    return shim.status() if problem is None else refused(problem)


def _answer(shim: Shim, request: Request, connection: Connection) -> Reply:
    ask, data = request.get("ask"), request.get("data")
    if not isinstance(ask, str) or not isinstance(data, str) or not data or "\n" in data:
        return refused("`answer` takes `ask`, and one line of `data`")  # a line that is none ends the Claude Code CLI (recording 10i)
    note, what = (_name(request, field, limit=NOTE_LENGTH) for field in ("note", "what"))
    if shim.is_own(connection.peer):
        return refused(NOT_YOURS)
    return shim.answer(ask, data, by=_name(request, "by"), what=what, decision=_name(request, "decision"), note=note)


def _follow(shim: Shim, _request: Request, connection: Connection) -> Reply:
    connection.following = True
    return shim.status()


OPERATIONS: Final[dict[str, Callable[[Shim, Request, Connection], Reply]]] = {
    "status": _status,
    "pause": _pause,
    "resume": _resume,
    "cancel": _cancel,
    "stdin": _stdin,
    "answer": _answer,
    "follow": _follow,
}
