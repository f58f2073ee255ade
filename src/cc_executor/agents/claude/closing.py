"""The end of a turn: the `result` line, and the answer that it closes. Knows the CLI's fields; reads no line.

An answer may come in several messages. When the stream breaks after a whole block (2.1.329), or when a message ends at the output limit, the CLI keeps
what there is, tells the model to resume from there ("Your response above was cut off mid-stream. Resume directly from where it stops"), and its `result`
holds the last message alone: half a sentence. The whole answer is put together here.
"""

from __future__ import annotations

from typing import Final, Self

import msgspec

from cc_executor.agents.claude import frames
from cc_executor.model.event import Denial, Finished, Usage

# Characters of the earlier messages of one answer; beyond it they are left to the journal. The receipt keeps 32,000 of the whole text.
EARLIER_LIMIT: Final = 1_000_000
_DUST: Final = 1e-9  # US dollars; what adding up in another order leaves
WINDOW_FULL: Final = "model_context_window_exceeded"
# Stop reasons after which the CLI asks for more of the same answer.
_UNFINISHED: Final = frozenset({"max_tokens", WINDOW_FULL})


class Answer:
    """The main agent's answer, over the messages that it takes."""

    __slots__ = ("_before", "_earlier", "_is_cut", "_resumes", "_said", "stop_reason")

    def __init__(self) -> None:
        self.stop_reason: str | None = None  # of the last message that said one
        self._earlier: tuple[str, ...] = ()  # texts of the messages that the present one goes on from
        self._said: tuple[str, ...] = ()  # whole text blocks of the present message
        self._is_cut = False
        self._resumes = False
        self._before: float | None = None  # US dollars that the session had cost before this process

    def copy(self) -> Self:
        """An independent answer in the same state."""
        twin = type(self)()
        for name in self.__slots__:
            setattr(twin, name, getattr(self, name))
        return twin

    def begin(self) -> None:
        """Another message begins."""
        earlier = (*self._earlier, *self._said) if self._resumes else ()
        self._earlier = earlier if sum(map(len, earlier)) <= EARLIER_LIMIT else ()
        self._said, self._is_cut, self._resumes = (), False, False

    def write(self, text: str) -> None:
        """A text block is whole."""
        self._said = (*self._said, text)

    def close(self, stop_reason: str | None) -> None:
        """The message says why it ends."""
        self.stop_reason = stop_reason
        self._is_cut = stop_reason in _UNFINISHED

    def cut(self) -> None:
        """The message ends without having been told whole."""
        self._is_cut = True

    def prompt(self) -> None:
        """The CLI itself says something to the model; after a cut: to go on."""
        self._resumes = self._is_cut

    def cost(self, frame: frames.ResultLine) -> float | None:
        """US dollars of this process.

        2.1.329 goes on counting where a resumed session stood (three answers of $0.012, each in a process of its own: 0.012, 0.024, 0.036), and says
        beside it what came since the last statement; 2.1.197 begins at 0.
        """
        total, since = frame.total_cost_usd, frame.model_usage_since_last_result
        if total is None:
            return None
        if self._before is None:
            before = 0.0 if since is None else total - sum(use.costUSD for use in since.values())
            self._before = before if before > _DUST else 0.0
        return total - self._before if self._before else total

    def whole(self, result: str | None) -> str | None:
        """The text of the answer, where `result` is that of its last message."""
        return "".join((*self._earlier, result)) if result is not None and result == "".join(self._said) else result


def finished(frame: frames.ResultLine, answer: Answer) -> Finished:
    """The closing statement, with the text of the whole answer."""
    usage = frame.usage or frames.TokenCounts()
    structured = frame.structured_output
    return Finished(
        subtype=frame.subtype,
        is_error=frame.is_error,
        text=frame.result if frame.is_error else answer.whole(frame.result),
        errors=tuple(frame.errors or ()),
        api_status=frame.api_error_status,
        terminal_reason=frame.terminal_reason,
        stop_reason=frame.stop_reason,
        structured=None if bytes(memoryview(structured)[:5]) in (b"", b"null") else structured.copy(),  # a copy, or it keeps the whole line
        denials=tuple(
            Denial(name=item.tool_name, tool_id=item.tool_use_id, input=json_text(item.tool_input))
            for item in frame.permission_denials or ()
        ),
        usage=Usage(
            input_tokens=usage.input_tokens or 0,
            output_tokens=usage.output_tokens or 0,
            cache_read_tokens=usage.cache_read_input_tokens or 0,
            cache_creation_tokens=usage.cache_creation_input_tokens or 0,
        ),
        cost=answer.cost(frame),
        turns=frame.num_turns,
        duration=None if frame.duration_ms is None else frame.duration_ms / 1000,
        session_id=frame.session_id,
    )


def json_text(raw: msgspec.Raw) -> str:
    """A JSON value as its text."""
    return bytes(raw).decode("utf-8", "replace")
