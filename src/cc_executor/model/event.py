"""What can happen in a run, as a closed union. Knows shapes; knows no agent's dialect, no file, no clock.

Two families. *From the agent*: what its output says, decoded by `agents`. *From us*: what the shim did and saw, read from
the control records of the journal (`cc_executor.shim.records` owns that format; the tag `kind` and the field names are the same).
All are frozen `msgspec` structs, because a flood makes millions of them.
"""

from __future__ import annotations

import msgspec


class _Event(msgspec.Struct, frozen=True, tag_field="kind", kw_only=True):
    pass


# --- from the agent -----------------------------------------------------------------------------------------------


class SessionOpened(_Event, frozen=True, kw_only=True, tag="session_opened"):
    """The agent's first sign of life; repeats when one process works through several turns."""

    session_id: str
    model: str = ""
    cwd: str = ""
    permission_mode: str = ""
    version: str = ""
    api_key_source: str = ""
    tools: tuple[str, ...] = ()
    mcp_servers: tuple[tuple[str, str], ...] = ()  # (name, status)


class MessageStarted(_Event, frozen=True, kw_only=True, tag="message_started"):
    """A new model message begins. Blocks of an earlier message that never became whole are void (a stream was cut and begun anew)."""

    message_id: str
    parent: str | None = None
    model: str = ""  # that writes it


class TextWritten(_Event, frozen=True, kw_only=True, tag="text_written"):
    """Text of one block. `whole=False`: a piece to append. `whole=True`: the block's authoritative text, which replaces the pieces."""

    block: str  # "<message id>:<index>", or a stream's name for agents without messages
    text: str
    whole: bool = False
    parent: str | None = None  # tool id of the subagent's call, None for the main agent
    synthetic: bool = False  # written by the CLI itself (its error texts), not by a model
    pieces: int = 1  # neighbouring pieces that were read together are one event


class ThinkingWritten(_Event, frozen=True, kw_only=True, tag="thinking_written"):
    """Thinking of one block; `whole` as in `TextWritten`."""

    block: str
    text: str
    whole: bool = False
    parent: str | None = None


class ToolCalled(_Event, frozen=True, kw_only=True, tag="tool_called"):
    """A tool call. First with `whole=False` as soon as its name is known (and `input` a piece of JSON text to append), then whole."""

    tool_id: str
    name: str
    input: str = ""  # JSON text
    whole: bool = True
    parent: str | None = None


class ToolReturned(_Event, frozen=True, kw_only=True, tag="tool_returned"):
    """A tool's result, as the model gets it. `path`: the file that it wrote, where the agent says so."""

    tool_id: str
    text: str
    is_error: bool = False
    path: str | None = None
    parent: str | None = None


class PermissionAsked(_Event, frozen=True, kw_only=True, tag="permission_asked"):
    """The agent waits for leave to use a tool. `suggestions`: JSON text of the rules that would allow more of the same, as the agent proposes them."""

    ask_id: str
    tool_id: str
    name: str
    input: str = ""
    suggestions: str = ""


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One answer to choose."""

    label: str
    description: str = ""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a person is to say.

    `name`: the field that the answer goes to, where the asker has one; `typed`: it takes no text there, but JSON; `optional`: it may be left empty.
    """

    text: str
    name: str = ""
    typed: bool = False
    optional: bool = False
    header: str = ""
    options: tuple[Option, ...] = ()
    multiple: bool = False


class QuestionAsked(_Event, frozen=True, kw_only=True, tag="question_asked"):
    """The agent (or `source`, an MCP server of its) waits for answers. `input`: the call's input as JSON text, which the answers are added to."""

    ask_id: str
    tool_id: str = ""
    questions: tuple[Question, ...] = ()
    source: str = ""
    input: str = ""


class AskWithdrawn(_Event, frozen=True, kw_only=True, tag="ask_withdrawn"):
    """The agent no longer waits for this answer."""

    ask_id: str


class HostAsked(_Event, frozen=True, kw_only=True, tag="host_asked"):
    """The agent waits for something that no person and nothing here can give; `what` is its name for it."""

    ask_id: str
    what: str


class ApiRetried(_Event, frozen=True, kw_only=True, tag="api_retried"):
    """The agent's API call failed and is tried again after `delay` seconds. `status` None: no HTTP answer (connection refused, cut)."""

    attempt: int
    max_attempts: int
    delay: float
    status: int | None = None
    error: str = ""


class RateLimited(_Event, frozen=True, kw_only=True, tag="rate_limited"):
    """A subscription's window: `status` is allowed, allowed_warning or rejected; `resets_at` in seconds since the epoch."""

    status: str
    resets_at: float | None = None
    window: str = ""
    utilization: float | None = None


class UsageCounted(_Event, frozen=True, kw_only=True, tag="usage_counted"):
    """Tokens of the message now being written, for the live display; the totals come with `Finished`."""

    message_id: str
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0


class ModelSwitched(_Event, frozen=True, kw_only=True, tag="model_switched"):
    """The agent went on with another model."""

    model: str
    reason: str = ""


class TaskChanged(_Event, frozen=True, kw_only=True, tag="task_changed"):
    """A task of the agent (a command, a subagent) started or ended.

    `background`: it is said to run beside the conversation; a foreground command that takes longer than 2 s is a task, too.
    """

    task_id: str
    status: str
    description: str = ""
    background: bool = False


class HookRan(_Event, frozen=True, kw_only=True, tag="hook_ran"):
    """One of the agent's own hooks ran."""

    name: str
    status: str = ""
    text: str = ""


class StatusChanged(_Event, frozen=True, kw_only=True, tag="status_changed"):
    """What the agent says that it does now: requesting, compacting, idle, requires_action, running."""

    status: str


class AgentFailed(_Event, frozen=True, kw_only=True, tag="agent_failed"):
    """The agent reports an API or model error in its own words; `code` is its machine-readable name (billing_error, rate_limit, …)."""

    code: str
    text: str = ""


class Denial(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call that was not allowed."""

    name: str
    tool_id: str = ""
    input: str = ""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of a run."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0


class Finished(_Event, frozen=True, kw_only=True, tag="finished"):
    """The agent's own closing statement: a claim, not the outcome. A run may have several (background work wakes it again)."""

    subtype: str
    is_error: bool
    text: str | None = None
    errors: tuple[str, ...] = ()
    api_status: int | None = None
    terminal_reason: str | None = None
    stop_reason: str | None = None
    structured: msgspec.Raw | None = None  # JSON of the structured output; None when there is none
    denials: tuple[Denial, ...] = ()
    usage: Usage = Usage()
    cost: float | None = None  # US dollars
    turns: int | None = None
    duration: float | None = None  # seconds
    session_id: str = ""


class Noise(_Event, frozen=True, kw_only=True, tag="noise"):
    """A line that is known and says nothing for us; `what` is its type."""

    what: str


class Unrecognised(_Event, frozen=True, kw_only=True, tag="unrecognised"):
    """A line that this version does not know, kept as it came (bounded; the journal has all of it)."""

    what: str
    raw: str


# --- from us --------------------------------------------------------------------------------------------------------
# `seq` counts a run's control records from 0 without a gap; `t` is seconds since the shim started; `at` is seconds since the epoch.


class _Record(_Event, frozen=True, kw_only=True):
    seq: int = -1
    t: float = 0.0
    at: float = 0.0


class Started(_Record, frozen=True, kw_only=True, tag="started"):
    """The shim has started the agent."""

    shim_pid: int
    agent_pid: int
    host: str = ""


class Paused(_Record, frozen=True, kw_only=True, tag="paused"):
    """The whole tree stands still. `processes`: how many were stopped."""

    by: str = ""
    processes: int = 0


class Resumed(_Record, frozen=True, kw_only=True, tag="resumed"):
    """The tree goes on. `paused`: seconds it stood still; no clock ran meanwhile."""

    by: str = ""
    paused: float = 0.0


class Answered(_Record, frozen=True, kw_only=True, tag="answered"):
    """A question of the agent got its answer. `decision`: a word of `cc_executor.model.ask.Decision`; `what` was asked and `note` was said, both bounded."""

    ask_id: str
    what: str = ""
    decision: str = ""
    by: str = ""
    note: str = ""


class StopRequested(_Record, frozen=True, kw_only=True, tag="stop_requested"):
    """Somebody, or a limit, wants the run to end. `reason`: cancel, interrupt, timeout, stalled, kernel_exit, auth, budget, linger."""

    reason: str
    by: str = ""


class Signalled(_Record, frozen=True, kw_only=True, tag="signalled"):
    """One rung of the stop ladder."""

    signal: str  # SIGINT, SIGTERM, SIGKILL, or "close_stdin"
    processes: int = 0


class Frozen(_Record, frozen=True, kw_only=True, tag="frozen"):
    """The machine or the shim stood still (suspend, SIGSTOP) for `seconds`; no clock counted them."""

    seconds: float


class LimitReached(_Record, frozen=True, kw_only=True, tag="limit_reached"):
    """A clock ran out. `limit`: wall or stall; `seconds`: its setting."""

    limit: str
    seconds: float


class Degraded(_Record, frozen=True, kw_only=True, tag="degraded"):
    """Output could not be kept (disk full); it is counted, and the run goes on."""

    stream: str
    error: str


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """A process that outlived the agent."""

    pid: int
    command: str


class LeftBehind(_Record, frozen=True, kw_only=True, tag="left_behind"):
    """Processes that the agent left when it ended by itself. `kept`: they live on by the user's wish; else they were ended."""

    processes: tuple[Leftover, ...]
    kept: bool = False


class Exited(_Record, frozen=True, kw_only=True, tag="exited"):
    """The agent has ended and its tree is empty; always the last record. Exactly one of `code` and `signal` is set."""

    code: int | None = None
    signal: str | None = None
    survivors: int = 0  # processes that could not be ended; 0 unless kept or stuck in the kernel


class StderrWritten(_Event, frozen=True, kw_only=True, tag="stderr_written"):
    """Text on the agent's standard error."""

    text: str


class Repeated(_Event, frozen=True, kw_only=True, tag="repeated"):
    """The agent goes round in a circle, as `cc_executor.policy.loopguard` sees it: `count` rounds with the same calls and the same results."""

    name: str  # the tool
    about: str = ""
    count: int = 0


class Queued(_Event, frozen=True, kw_only=True, tag="queued"):
    """The run is accepted and not started."""


AgentEvent = (
    SessionOpened
    | MessageStarted
    | TextWritten
    | ThinkingWritten
    | ToolCalled
    | ToolReturned
    | PermissionAsked
    | QuestionAsked
    | AskWithdrawn
    | HostAsked
    | ApiRetried
    | RateLimited
    | UsageCounted
    | ModelSwitched
    | TaskChanged
    | HookRan
    | StatusChanged
    | AgentFailed
    | Finished
    | Noise
    | Unrecognised
)
ControlRecord = Started | Paused | Resumed | Answered | StopRequested | Signalled | Frozen | LimitReached | Degraded | LeftBehind | Exited
Event = AgentEvent | ControlRecord | StderrWritten | Queued | Repeated
