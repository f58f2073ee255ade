"""Who is told of a server's runs and lists: what requests may name, what an administrator lets through, and what is promised to a run that waits.

A server can reach what those who send it requests cannot. So a request names addresses alone, and nothing is sent to one of this machine or of a private
network unless an administrator has named its host.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from cc_executor.api import NOTIFY, take_notify
from cc_executor.errors import InvalidRequest
from cc_executor.server.refusal import Refused
from cc_executor.store.place import WISH
from cc_executor.store.plain import unwritable

if TYPE_CHECKING:
    from cc_executor.model.notify import Notify

FOLDER: Final = Path("server", "notify")  # in the state folder: a folder for each run that was promised and has not begun
_ALLOWED: Final = ("https://", "http://", "browser", "none")


def schemas() -> dict[str, Any]:
    """The options of a request, as JSON Schema."""
    text = {"type": "string"}
    return {
        "notify": {
            "anyOf": [text, {"type": "array", "items": text}],
            "description": "https addresses that are told of the end and of questions.",
        },
        "notify_after": {"type": "number", "minimum": 0, "description": "Seconds; of what took less nobody is told."},
        "notify_on": {
            "type": "array",
            "items": {"enum": ["done", "failed", "input"]},
            "description": "Of what; of all three if not given.",
        },
    }


class Notices(msgspec.Struct):
    """For one server.

    Attributes
    ----------
    root : Path
        The state folder.
    environ : mapping of str to str
    hosts : sequence of str
        What an administrator allows; empty: every host that everybody can reach.
    own : mapping
        The server's own wish, by the names of the options: it holds for requests that say nothing, and is not bound by `hosts`.
    """

    root: Path
    environ: Mapping[str, str]
    hosts: Sequence[str] = ()
    own: Mapping[str, Any] = {}

    def take(self, options: MutableMapping[str, Any]) -> Notify | None:
        """Who is told, taken out of a request's options.

        Raises
        ------
        InvalidRequest
        Refused
            An administrator does not allow that host.
        """
        given = {name: options.pop(name) for name in NOTIFY if name in options}
        if given.get("notify") is None:
            return take_notify(dict(self.own) | {name: value for name, value in given.items() if value is not None}, self.environ)
        from cc_executor.model.notify import notify_from  # as in `runtime.telling`: where nobody is to be told, nothing of it is loaded

        named: object = given["notify"]
        several: list[object] = cast("list[object]", named) if isinstance(named, list) else [named]
        for target in several:
            if isinstance(target, str) and not target.strip().startswith(_ALLOWED):
                raise InvalidRequest("notify: a request can name https addresses alone. Commands and env:NAME are settings of the server.")
        wish = notify_from(several, after=given.get("notify_after"), on=given.get("notify_on"), environ={})
        for target in wish.targets:
            self._check(target)
        return wish.model_copy(update={"guarded": True, "hosts": tuple(self.hosts)})

    def _check(self, target: str) -> None:
        from cc_executor.model.notify import address, shown
        from cc_executor.runtime.webhook import is_named

        parts = address(target)
        is_allowed = parts is not None and is_named(parts.hostname or "", self.hosts)
        if self.hosts and not is_allowed:
            raise Refused(403, "NotAllowed", f"Nothing may be sent to {shown(target)} from here. Choose one of {', '.join(self.hosts)}.")
        if target.startswith("http://") and not is_allowed:
            raise Refused(403, "NotAllowed", f"Nothing may be sent to {shown(target)}, which is the server's own machine. Use https.")

    # --- for runs that wait ---

    def promise(self, run_id: str, wish: Notify | None) -> None:
        """Write down who is told of a run that will begin. Raises `StateUnusable`. Blocking."""
        if wish is None or not wish.targets:
            return
        from cc_executor.store import notices

        folder = self.root / FOLDER / run_id
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            notices.keep(folder, wish)
        except OSError as error:
            raise unwritable(folder, error) from error

    def promised(self, run_id: str) -> Notify | None:
        """Who is told of a run that begins now. Blocking."""
        folder = self.root / FOLDER / run_id
        if not (folder / WISH).exists():
            return None
        from cc_executor.store import notices

        return notices.wish_in(folder)

    def forget(self, run_id: str) -> None:
        """The run has begun, or never will. Blocking."""
        folder = self.root / FOLDER / run_id
        with suppress(OSError):
            (folder / WISH).unlink(missing_ok=True)
            folder.rmdir()
