"""What is known of a run so far. Knows no agent's dialect, no clock, no file, and not how an event changes it: see `cc_executor.model.fold`.

Everything in it that grows has a bound; what is beyond it is counted, and is in the journal.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from cc_executor.model.ask import Ask, Questions, Settled
from cc_executor.model.block import Block, BlockKind, Tool
from cc_executor.model.clipped import Clipped
from cc_executor.model.event import (
    AgentFailed,
    ApiRetried,
    Degraded,
    Denial,
    Exited,
    Finished,
    LeftBehind,
    LimitReached,
    RateLimited,
    Signalled,
    Started,
    StopRequested,
    TaskChanged,
    Usage,
)
from cc_executor.model.phase import Phase


class Counted(msgspec.Struct, frozen=True):
    """Tokens of one message so far."""

    message_id: str
    input_tokens: int
    output_tokens: int


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of a run after some of its events.

    Attributes
    ----------
    blocks : tuple of Block
        Text and thinking in order. A block that is not whole becomes void (is removed) when its agent begins another message, or at the closing statement.
    tools : mapping of str to Tool
        The newest calls by id, in order.
    failure : AgentFailed or None
        The last error that the agent reported in its present turn; `problems` has those of all turns.
    retry : ApiRetried or None
        The last retry of the present turn; `retries` counts those of all turns.
    finished : Finished or None
        The last closing statement, its texts bounded.
    denials : tuple of Denial
        Of all closing statements.
    cost : float or None
        US dollars. The agent counts them for its whole process, so the last statement's figure stands.
    turns : int or None
        Sum over the closing statements, which count for themselves alone.
    model_spoke : bool
        Whether anything came from a model; else the agent answered by itself.
    """

    events: int = 0
    unrecognised: int = 0
    activity: Phase = Phase.QUEUED  # what the agent does, were it neither paused nor stopping; see `phase`

    session_id: str = ""
    agent_version: str = ""
    model: str = ""
    permission_mode: str = ""
    api_key_source: str = ""
    mcp_servers: tuple[tuple[str, str], ...] = ()

    blocks: tuple[Block, ...] = ()
    begun: int = 0  # blocks that are not whole
    blocks_left_out: int = 0
    tools: Mapping[str, Tool] = {}
    busy: int = 0  # calls of the main agent that run
    tools_left_out: int = 0
    tasks: Mapping[str, TaskChanged] = {}  # background tasks that run
    questions: Questions = Questions()
    files: tuple[str, ...] = ()  # paths written, as the agent says
    files_left_out: int = 0
    model_spoke: bool = False

    retries: int = 0
    retry: ApiRetried | None = None
    rate_limit: RateLimited | None = None
    problems: tuple[AgentFailed, ...] = ()
    failure: AgentFailed | None = None
    denials: tuple[Denial, ...] = ()
    denials_left_out: int = 0
    finished: Finished | None = None
    finishes: int = 0
    final_text: Clipped | None = None
    settled_usage: Usage = Usage()  # of messages and turns that are over
    counted: tuple[Counted, ...] = ()
    cost: float | None = None
    turns: int | None = None

    stderr: Clipped = Clipped()
    started: Started | None = None
    stop: StopRequested | None = None  # the first; later ones are rungs of the same end
    limit: LimitReached | None = None
    signals: tuple[Signalled, ...] = ()
    degraded: tuple[Degraded, ...] = ()
    left_behind: LeftBehind | None = None
    exited: Exited | None = None
    is_paused: bool = False
    pauses: int = 0  # how often
    paused: float = 0.0  # seconds
    frozen: float = 0.0  # seconds

    @property
    def phase(self) -> Phase:
        """What the run is doing."""
        if self.exited is not None:
            return Phase.ENDED
        if self.stop is not None:
            return Phase.STOPPING
        if self.is_paused:
            return Phase.PAUSED
        return Phase.ASKING if self.asks else self.activity

    @property
    def asks(self) -> tuple[Ask, ...]:
        """Questions that somebody is to answer; none once the run has ended."""
        return () if self.exited is not None else self.questions.open

    @property
    def asked(self) -> tuple[Settled, ...]:
        """All questions, with their answers."""
        return self.questions.asked

    @property
    def running_tools(self) -> tuple[Tool, ...]:
        """Calls that have not returned; none once the run has ended."""
        return () if self.exited is not None else tuple(tool for tool in self.tools.values() if tool.is_running)

    @property
    def text(self) -> str:
        """The final text, bounded: that of the closing statement, else the whole text of the main agent's last message, else a plain stream's text."""
        return "".join(part.text for part in self._final)

    @property
    def text_size(self) -> int:
        """Characters of the whole final text, of which `text` may have both ends alone."""
        return sum(part.size for part in self._final)

    @property
    def _final(self) -> tuple[Clipped, ...]:
        if self.final_text is not None:
            return (self.final_text,)
        mine = [
            block for block in self.blocks if block.parent is None and block.kind is BlockKind.TEXT and (block.whole or not block.message)
        ]
        return tuple(block.body for block in mine if block.message == mine[-1].message)

    @property
    def usage(self) -> Usage:
        """Tokens so far: exact after a closing statement, else counted from the messages as they are written."""
        return replace(
            self.settled_usage,
            input_tokens=self.settled_usage.input_tokens + sum(message.input_tokens for message in self.counted),
            output_tokens=self.settled_usage.output_tokens + sum(message.output_tokens for message in self.counted),
        )
