"""A run's further attempts: after a usage limit, a cut answer, a missing structured result; and the money of one day. Starts nothing itself."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from cc_executor.errors import DaySpent
from cc_executor.model.care import Care
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import RunRequest
from cc_executor.model.state import RunState
from cc_executor.runtime.errand import in_thread
from cc_executor.store.home import StateHome

if TYPE_CHECKING:  # what decides is loaded when something is to be decided: most runs end well, and have no bound for the day
    from cc_executor.policy.retry import Again, Cause

LOOK: Final = 0.2  # seconds between looks at the clock and at whoever waits


class Attempts:
    """What one wish has led to so far, and what is to be run next.

    Parameters
    ----------
    request : RunRequest
    care : Care
    max_cost_per_day : float or None
    home : StateHome
    environ : mapping
        The environment in which the agent's sessions are looked for.
    """

    def __init__(
        self, request: RunRequest, care: Care, *, max_cost_per_day: float | None, home: StateHome, environ: Mapping[str, str]
    ) -> None:
        self._whole = request
        self._request = request
        self._care = care
        self._day = max_cost_per_day
        self._home = home
        self._environ = environ
        self._tried: Counter[Cause] = Counter()
        self._spent = 0.0
        self.remark = ""  # why no further attempt is made that was wished for

    async def request(self) -> RunRequest:
        """The next attempt's request, with a bound that keeps the day's.

        Raises
        ------
        DaySpent
            Before the first one; or others have spent it while the next one waited.
        """
        return await self._bounded(time.time())

    async def _bounded(self, now: float) -> RunRequest:
        return await in_thread(partial(within_day, self._request, self._day, home=self._home, now=now))

    async def after(self, receipt: Receipt, state: RunState) -> Again | None:
        """What follows an attempt; None: nothing does."""
        if receipt.outcome.ok:
            return None
        from cc_executor.policy.budget import SMALLEST
        from cc_executor.policy.retry import Again, decide, hit_of, said

        kind = receipt.outcome.kind
        ended_at = receipt.times.ended.timestamp()
        again = decide(kind, hit_of(kind, state), ended_at=ended_at, tried=self._tried, care=self._care, seed=receipt.run_id)
        if not isinstance(again, Again):
            return None
        self._tried[again.cause] += 1
        limits = self._whole.limits
        if limits.cost is not None:  # the bound is that of the wish: the agent's own count begins anew with each process
            self._spent += receipt.cost or 0.0
            if limits.cost - self._spent < SMALLEST:
                self.remark = f"Not tried again: ${self._spent:.2f} of the ${limits.cost:.2f} are spent that it may cost. Raise max_cost."
                return None
            limits = limits.model_copy(update={"cost": limits.cost - self._spent})
        session = await in_thread(partial(resumable, receipt, self._environ)) if again.is_resumed else ""
        changes = {"prompt": said(self._whole.prompt, again.say, is_resumed=bool(session)), "limits": limits}
        self._request = self._whole.model_copy(update=changes | ({"resume": session} if session else {}))
        try:  # here, where there still is a receipt to be returned, and for the day on which it would be
            await self._bounded(max(time.time(), again.until))
        except DaySpent as error:
            self.remark = f"Not tried again: {error}"
            return None
        return again


def resumable(receipt: Receipt, environ: Mapping[str, str]) -> str:
    """The agent's session, if its transcript is there for another run to continue."""
    if receipt.agent != "claude" or not receipt.session_id or receipt.rehearsed:  # a rehearsal's transcript stays with its run
        return ""
    from cc_executor.runtime.transcripts import find_transcripts
    from cc_executor.runtime.verification import transcript_roots

    return receipt.session_id if find_transcripts(receipt.session_id, transcript_roots(environ)) else ""


def within_day(request: RunRequest, cap: float | None, *, home: StateHome, now: float) -> RunRequest:
    """The request with what is left of the day as its bound, if that is less than its own.

    Raises
    ------
    DaySpent
        Nothing is left.
    """
    if cap is None or request.agent == "shell" or request.rehearse is not None:
        return request
    from cc_executor.policy.budget import SMALLEST, Purse
    from cc_executor.runtime.unsealed import spent_unsealed
    from cc_executor.store.spend import spent_today

    purse = Purse(day_cap=cap, today=spent_today(home, now, unsealed=spent_unsealed))
    if purse.left < SMALLEST:
        raise DaySpent(f"${purse.today:.2f} of the day's ${cap:.2f} are spent. Go on tomorrow, or raise max_cost_per_day.")
    own = request.limits.cost
    if own is not None and own <= purse.left:
        return request
    return request.model_copy(update={"limits": request.limits.model_copy(update={"cost": purse.left})})


async def wait_until(until: float, *, is_over: Callable[[], bool], tell: Callable[[float], None]) -> None:
    """Wait for a time (seconds since the epoch), or until `is_over`. `tell` is called with the seconds that are left, five times a second."""
    end = time.monotonic() + until - time.time()  # a clock that is set back makes no wait longer
    while (left := min(until - time.time(), end - time.monotonic())) > 0 and not is_over():
        tell(left)
        await anyio.sleep(min(LOOK, left))
