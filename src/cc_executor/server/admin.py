"""What an administrator can look at: the audit, and what people have used. Knows tornado and jupyter_server's conventions."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from jupyter_server.auth.authorizer import AllowAllAuthorizer
from jupyter_server.utils import ensure_async

from cc_executor.server.authorizer import ADMIN_RESOURCE
from cc_executor.server.refusal import Refused
from cc_executor.server.rest import Api, endpoint

if TYPE_CHECKING:
    from cc_executor.server.audit import Audit
    from cc_executor.server.service import Service

ROWS: Final = 100
ROWS_LIMIT: Final = 1000
DAYS: Final = 30
DAYS_LIMIT: Final = 366
DAY: Final = 24 * 3600.0


class _Admin(Api):
    """A look at what concerns everybody."""

    async def check(self) -> None:
        """Raises `Refused` for whoever is no administrator.

        The authorizer decides. Those that look at no resource would let everybody in who may use the server; where names mean people, its owner and the
        hub's administrators are the ones then.
        """
        if not await ensure_async(self.authorizer.is_authorized(self, self.current_user, "read", ADMIN_RESOURCE)):
            raise Refused(403, "NotAllowed", "This is for administrators.")
        kind = type(self.authorizer)
        if not (kind is AllowAllAuthorizer or kind.__module__.partition(".")[0] == "jupyterhub") or not self.service.is_by_name:
            return
        hub_user: dict[str, Any] = getattr(self.current_user, "hub_user", None) or {}
        if not (hub_user.get("admin") or self.service.is_server_owner(self.current_user.username)):
            raise Refused(403, "NotAllowed", "This is for administrators.")


class _Audit(_Admin):
    """Who wanted what, and what was decided, newest first."""

    @endpoint("read")
    async def get(self) -> None:
        await self.check()
        limit = max(1, self.number("limit", ROWS, most=ROWS_LIMIT))
        who, decision, before = (self.get_query_argument(name, None) for name in ("who", "decision", "before"))
        audit = cast("Callable[[], Audit]", self.settings["cc_executor_audit"])()
        rows, following = await asyncio.to_thread(audit.page, limit, who=who, decision=decision or "", before=before or "")
        self.answer({"rows": rows, "next": following})


class _Usage(_Admin):
    """Runs, dollars and tokens of each person and day."""

    @endpoint("read")
    async def get(self) -> None:
        await self.check()
        days = max(1, self.number("days", DAYS, most=DAYS_LIMIT))
        self.answer({"usage": await asyncio.to_thread(usage, self.service, days, time.time())})


def usage(service: Service, days: int, now: float) -> list[dict[str, Any]]:
    """What was used on each of the last days, newest first. Rehearsals count as runs and cost nothing. Blocking."""
    from cc_executor.store.localtime import local, local_day

    start = local_day(local_day(now)[0] - (days - 1.5) * DAY)[0]  # by way of a noon: days have 23 to 25 hours
    sums: defaultdict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0.0, 0])
    for run in service.admission.ended(start):
        total = sums[local(run.ended).date().isoformat(), service.owner(run.run_id)]
        total[0] += 1
        total[1] += run.cost
        total[2] += run.tokens
    return [
        {"day": day, "who": who, "runs": int(runs), "cost": round(cost, 9), "tokens": int(tokens)}
        for (day, who), (runs, cost, tokens) in sorted(sums.items(), reverse=True)
    ]


ROUTES: Final[tuple[tuple[str, type[_Admin]], ...]] = (("/admin/audit", _Audit), ("/admin/usage", _Usage))
