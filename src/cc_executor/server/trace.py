"""A request from its beginning to its end: its id, its errors as JSON, and what is logged and audited of it. Knows tornado; knows no run."""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from jupyter_server.base.handlers import JupyterHandler
from tornado import web

from cc_executor.errors import StateUnusable
from cc_executor.runtime.telemetry import join
from cc_executor.server.refusal import told_as
from cc_executor.server.requestid import REQUEST

if TYPE_CHECKING:
    from cc_executor.server.audit import Audit

logger = logging.getLogger(__name__)

HEADER: Final = "X-Request-Id"
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ADMIN: Final = "/admin/"
_LOOKS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# Of looks, those that were refused are noted, and of these not what any client gets that asks too early or in a wrong form.
_NOTED_LOOKS: Final = frozenset({401, 403, 404, 429})
_LOGIN: Final = ("NotLoggedIn", "A token of this server is needed: send the header Authorization: token TOKEN.")
_XSRF: Final = (
    "XsrfRefused",
    "A request with a cookie needs the header X-XSRFToken with the value of the cookie _xsrf. One with a token does not.",
)
_WORDS: Final[dict[int, tuple[str, str]]] = {
    400: ("InvalidRequest", "The request cannot be read: send UTF-8 in the address, as ?status=ok, and a body as application/json."),
    401: _LOGIN,
    403: ("NotAllowed", "You may not do this here."),
    404: ("NotFound", "There is nothing at this address."),
    405: ("MethodNotAllowed", "This address does not take this method; GET /cc-executor/api/v1/openapi.json says what it takes."),
    413: ("TooLarge", "The request is too large."),
    500: ("InternalError", "Something went wrong here. The server's log has it under the id of this request."),
}


class Traced(JupyterHandler):
    """What every handler of ours is: it has an id, says errors as JSON, and is noted."""

    door = "rest"
    route = ""  # its pattern, for the log and the audit: never what somebody has put in its place
    kind = ""  # of the error that was answered
    reason = ""
    about = ""  # the run
    starts_nothing = False  # whatever its method: it is a look
    _request_id = ""

    @property
    def request_id(self) -> str:
        """The client's own id if it has sent a fit one, else a new one."""
        if not self._request_id:
            given = self.request.headers.get(HEADER, "")
            self._request_id = given if _ID.fullmatch(given) else secrets.token_hex(8)
        return self._request_id

    def set_default_headers(self) -> None:
        """Every answer names its request, errors too."""
        super().set_default_headers()
        self.set_header(HEADER, self.request_id)

    def prepare(self, *arguments: Any, **more: Any) -> Any:
        """What is logged from here on names this request; what it starts is part of the trace that it names."""
        REQUEST.set(self.request_id)
        join(self.request.headers)
        return super().prepare(*arguments, **more)

    def get_login_url(self) -> str:
        """Nobody is sent to a login page from here: programs call."""
        raise web.HTTPError(403)

    def write_error(self, status_code: int, **more: Any) -> None:
        """An error that nobody has put into words."""
        error = (more.get("exc_info") or (None, None, None))[1]
        said = str(getattr(error, "log_message", "") or "")
        kind, message = _WORDS.get(status_code, ("Refused", "The request cannot be answered."))
        if status_code == 403 and self.user is None:  # noqa: PLR2004 - HTTP's number
            kind, message = _LOGIN
        elif status_code == 403 and "xsrf" in said.lower():  # noqa: PLR2004 - as above
            kind, message = _XSRF
        if isinstance(error, StateUnusable):  # so there is no service yet, which would have put it into words
            self.set_status(told_as(error)[0])
            kind, message = told_as(error)[1], str(error)
        self.kind = kind
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"error": {"kind": kind, "message": message}}))  # pyright: ignore[reportUnknownMemberType] - tornado says `dict` of nothing

    @property
    def user(self) -> Any:
        """Who asks, as far as it came to that: errors may be earlier than the login."""
        return getattr(self, "_jupyter_current_user", None)

    def on_finish(self) -> None:
        """Log and note what has become of it."""
        super().on_finish()
        status, method = self.get_status(), str(self.request.method)
        logger.info(
            "%s %s %d %.0f ms", method, self.route, status, 1000 * self.request.request_time(), extra={"request_id": self.request_id}
        )
        is_look = method in _LOOKS or self.starts_nothing
        is_noted = not is_look or self.route.startswith(_ADMIN) or status in _NOTED_LOOKS
        if not is_noted or (self.door == "mcp" and status < 400):  # noqa: PLR2004 - HTTP's first error; the tools note themselves
            return
        try:
            audit = cast("Callable[[], Audit]", self.settings["cc_executor_audit"])()
        except StateUnusable as error:
            logger.warning("request %s could not be audited: %s", self.request_id, error)
            return
        audit.note(
            who=self.user.username if self.user else None,
            door=self.door,
            what=f"{method} {self.route}",
            status=status,
            run=self.about or "".join(getattr(self, "path_args", ())[:1]),  # tornado sets none for a method that it does not know
            reason=": ".join(filter(None, (self.kind, self.reason))),
            request=self.request_id,
            origin=self.request.remote_ip or "",
        )


class Nowhere(Traced):
    """An address below ours at which there is nothing."""

    route = "(no such route)"

    @web.authenticated
    def get(self) -> None:
        """Nothing."""
        raise web.HTTPError(404)

    post = put = patch = delete = get
