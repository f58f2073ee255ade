"""Whether an agent goes round in a circle: the same tool, the same input, the same result, again and again. A pure fold over events.

Only calls that have come back count, and another call between them, or another result, begins anew: who waits for a build by asking again and again
gets other output at some time, and who does not is going round in a circle. What is not seen is a circle of several different calls in turn with
results that differ by a clock; for that there are the limits on turns, time and cost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

from cc_executor.model import toolcall
from cc_executor.model.event import Event, Repeated, ToolCalled, ToolReturned

# Polling that is meant to be (a server that starts, a job that is awaited) was seen to take up to some eight equal answers.
REPEATS: Final = 12
CYCLE: Final = 3  # a circle of up to so many different calls is seen, too
OPEN_LIMIT: Final = 256  # calls that have not come back


class _Call(msgspec.Struct, frozen=True):
    name: str
    input: str
    about: str


class LoopGuard:
    """Fed with events, it says when the agent has begun to go round in a circle: once for each circle, and again each time it is twice as long.

    Parameters
    ----------
    repeats : int
        Rounds with the same calls and the same results.
    """

    def __init__(self, repeats: int = REPEATS) -> None:
        self._repeats = repeats
        self._open: dict[str, _Call] = {}
        self._steps: list[str] = []  # digests of the newest calls that came back
        self._rounds = dict.fromkeys(range(1, CYCLE + 1), 0)  # steps, by the circle's length, that are as they were one circle before
        self._told = repeats

    def copy(self) -> LoopGuard:
        """An independent guard that has seen the same."""
        twin = LoopGuard(self._repeats)
        twin._open, twin._steps, twin._rounds, twin._told = dict(self._open), list(self._steps), dict(self._rounds), self._told
        return twin

    def feed(self, events: Iterable[Event]) -> list[Repeated]:
        """Take what happened; what is to be said of it."""
        found: list[Repeated] = []
        for event in events:
            match event:
                case ToolCalled(tool_id=tool_id, name=name, input=source, whole=True, parent=None):
                    if len(self._open) >= OPEN_LIMIT:
                        del self._open[next(iter(self._open))]
                    self._open[tool_id] = _Call(name, _digest(source), toolcall.summary(toolcall.fields(source) or {}))
                case ToolReturned(tool_id=tool_id, text=text, is_error=is_error, parent=None) if tool_id in self._open:
                    call = self._open.pop(tool_id)
                    said = self._step(call, _digest(f"{call.name}\0{call.input}\0{is_error}\0{text}"))
                    if said is not None:
                        found.append(said)
                case _:
                    pass
        return found

    def _step(self, call: _Call, digest: str) -> Repeated | None:
        longest = 0
        for length in self._rounds:
            is_same = len(self._steps) >= length and self._steps[-length] == digest
            self._rounds[length] = self._rounds[length] + 1 if is_same else 0
            longest = max(longest, self._rounds[length] // length + 1)
        self._steps = [*self._steps[-CYCLE + 1 :], digest]
        if longest == 1:
            self._told = self._repeats
        if longest < self._told:
            return None
        self._told *= 2
        return Repeated(name=call.name, about=toolcall.one_line(call.about, 80), count=longest)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
