"""Events for hooks that want them: kept in a bounded queue, handed over in batches from a thread.

The run's own way is never held up: what has no room is dropped, counted and told.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import structs

from cc_executor.model.event import Event, Finished, Noise, TextWritten, ThinkingWritten, ToolCalled, UsageCounted
from cc_executor.model.hook import Hook, HookReport, HookStatus

QUEUE: Final = 2_000  # events that wait for one hook; with 32 MB lines that is the run's own memory, held some moments longer
BATCH: Final = 200  # events in one call
PACE: Final = 0.25  # seconds that a batch gathers before a call: a command a second is a lot, a callable is not
COMMAND_PACE: Final = 1.0
LOOK: Final = 0.05  # seconds between two looks at whether the rest of the events is still to be waited for
STRIKES: Final = 3  # calls that fail one after another; then it is not called any more
TEXT_CHARS: Final = 4_000  # of one text in an event; the journal has all of it
MASKED_CHARS: Final = 64_000  # in which secrets are looked for until then

# Pieces of what comes whole later, and lines that say nothing: a model writes hundreds of them a second. Who wants them names their kind.
_PIECES: Final = (TextWritten, ThinkingWritten, ToolCalled)
_QUIET: Final = (UsageCounted, Noise)


class EventPump:
    """One hook and the events that wait for it.

    Parameters
    ----------
    hook : Hook
    deliver : callable
        Calls the hook with the events of a batch; from the pump's thread.
    mask : callable
        Takes secrets out of a text.
    """

    def __init__(
        self,
        hook: Hook,
        deliver: Callable[[Hook, Mapping[str, Any]], HookReport],
        tell: Callable[[HookReport], None],
        *,
        mask: Callable[[str], str] = str,
    ) -> None:
        self._hook = hook
        self._mask = mask
        self._deliver = deliver
        self._tell = tell
        self._kinds = frozenset(hook.events)
        self._waiting: deque[Event] = deque()
        self._news = threading.Condition()
        self._is_closing = False
        self._calls = 0
        self._given = 0
        self._dropped = 0
        self._in_hand = 0
        self._strikes = 0
        self._failed = 0
        self._last = ""
        self._hung = False
        self._thread: threading.Thread | None = None

    def feed(self, events: Sequence[Event]) -> None:
        """Take what has room; microseconds, from the loop."""
        wanted = [event for event in events if self._wants(event)]
        if not wanted:
            return
        if self._strikes >= STRIKES or self._hung:
            self._dropped += len(wanted)
            return
        with self._news:
            room = QUEUE - len(self._waiting)
            self._waiting.extend(wanted[:room])
            self._dropped += max(0, len(wanted) - room)
            self._news.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._pump, name=f"cc_executor events {self._hook.name}", daemon=True)
            self._thread.start()

    def dismiss(self) -> None:
        """Let the thread end when it has handed over what waits; nobody asks what became of it."""
        with self._news:
            self._is_closing = True
            self._news.notify()

    def close(self, patience: Callable[[], float] | None = None) -> HookReport | None:
        """Hand over the rest, for one call's time at most, and tell what became of all of it; None when there was nothing. Blocking.

        `patience`: seconds for that call, asked again and again, for whoever waits may go away; the hook's own time if not given.
        """
        self.dismiss()
        if self._thread is None:
            return None
        begun = time.monotonic()
        while self._thread.is_alive():
            seconds = self._hook.timeout if patience is None else patience()
            left = begun + seconds + COMMAND_PACE - time.monotonic()
            if left <= 0 or not seconds:
                break
            self._thread.join(min(LOOK, left))
        with self._news:
            self._dropped += len(self._waiting)
            self._waiting.clear()
            in_hand = self._in_hand
            parts = [f"{self._given:,} events in {self._calls:,} {'call' if self._calls == 1 else 'calls'}"]
        if self._failed:
            parts.append(f"{self._failed:,} failed ({self._last})" if self._last else f"{self._failed:,} failed")
        if self._dropped:
            parts.append(f"{self._dropped:,} events were dropped")
        if in_hand:
            parts.append(f"{in_hand:,} events were still being handed over")
        status = HookStatus.HUNG if self._hung else HookStatus.FAILED if self._failed or self._dropped or in_hand else HookStatus.OK
        return HookReport(hook=self._hook.name, moment=self._hook.moment, status=status, detail="; ".join(parts))

    def _wants(self, event: Event) -> bool:
        return event.__struct_config__.tag in self._kinds if self._kinds else tells(event)

    def _pump(self) -> None:
        pace = COMMAND_PACE if self._hook.command else PACE
        while True:
            with self._news:
                while not self._waiting and not self._is_closing:
                    self._news.wait()
                if not self._waiting:
                    return
                until = time.monotonic() + pace
                while len(self._waiting) < BATCH and not self._is_closing and (left := until - time.monotonic()) > 0:
                    self._news.wait(left)
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                self._in_hand = len(batch)
            self._hand_over(batch)
            if self._strikes >= STRIKES or self._hung:
                return

    def _hand_over(self, batch: list[Event]) -> None:
        report = self._deliver(self._hook, {"events": [plain(event, self._mask) for event in batch], "dropped": self._dropped})
        with self._news:
            self._calls += 1
            self._given += len(batch)
            self._in_hand = 0
        if report.ok:
            self._strikes = 0
            return
        self._failed += 1
        self._strikes += 1
        self._last = report.detail
        self._hung = report.status is HookStatus.HUNG
        if self._failed == 1:
            self._tell(report)
        if self._strikes >= STRIKES or self._hung:
            why = "it hangs" if self._hung else f"it failed {STRIKES} times one after another"
            self._tell(report.model_copy(update={"detail": f"{why}, and is not called any more in this run"}))


def tells(event: Event) -> bool:
    """Whether an event says something by itself: no piece of what comes whole later, and no line that says nothing."""
    return not isinstance(event, _QUIET) and (not isinstance(event, _PIECES) or event.whole)


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder()


def plain(event: Event, mask: Callable[[str], str]) -> dict[str, Any]:
    """An event as JSON values, its texts bounded and without secrets."""
    value: dict[str, Any]
    try:
        value = _decoder.decode(_encoder.encode(event))
    except (ValueError, RecursionError):  # a structured output with a number beyond every double: a text, as in the receipt
        if not isinstance(event, Finished) or event.structured is None:
            raise
        text = _encoder.encode(bytes(event.structured).decode(errors="replace"))
        value = _decoder.decode(_encoder.encode(structs.replace(event, structured=msgspec.Raw(text))))
    return {name: _bounded(item, mask) if isinstance(item, str) else item for name, item in value.items() if name != "pieces"}


def _bounded(value: str, mask: Callable[[str], str]) -> str:
    shown = mask(value[:MASKED_CHARS])  # before it is cut: the beginning of a secret is not recognised
    return shown if len(shown) <= TEXT_CHARS and len(value) <= MASKED_CHARS else f"{shown[:TEXT_CHARS]}… ({len(value):,} characters)"
