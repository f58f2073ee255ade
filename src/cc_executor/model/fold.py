"""How a run's state comes of its events: a total fold. Knows every event's meaning; knows no agent's dialect, no clock, no file.

`advance` is the fold's step, `advance_all` the same for many events at once: pieces of one text are joined first, so a text of 5 MB in pieces of 40
characters is not copied 125,000 times. Both give the same state. What grows in it is bounded here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, assert_never

from msgspec.structs import replace

from cc_executor.model.ask import Questions
from cc_executor.model.block import BLOCK_LIMIT, TOOL_TEXT_LIMIT, Block, BlockKind, Tool
from cc_executor.model.clipped import Clipped
from cc_executor.model.event import (
    AgentFailed,
    Answered,
    ApiRetried,
    AskWithdrawn,
    Degraded,
    Event,
    Exited,
    Finished,
    Frozen,
    HookRan,
    HostAsked,
    LeftBehind,
    LimitReached,
    MessageStarted,
    ModelSwitched,
    Noise,
    Paused,
    PermissionAsked,
    QuestionAsked,
    Queued,
    RateLimited,
    Repeated,
    Resumed,
    SessionOpened,
    Signalled,
    Started,
    StatusChanged,
    StderrWritten,
    StopRequested,
    TaskChanged,
    TextWritten,
    ThinkingWritten,
    ToolCalled,
    ToolReturned,
    Unrecognised,
    Usage,
    UsageCounted,
)
from cc_executor.model.joined import joined, pieces_of
from cc_executor.model.phase import Phase
from cc_executor.model.state import Counted, RunState

FINAL_TEXT_LIMIT: Final = 1024 * 1024  # characters of the final text
STDERR_LIMIT: Final = 64 * 1024  # characters; a crash of the CLI writes 200,000 of its own source, and why at both ends
BLOCKS_LIMIT: Final = 256  # newest blocks; with BLOCK_LIMIT at most 16 Mi characters
TOOLS_LIMIT: Final = 256  # newest tool calls; a running one is never let go before an ended one
FILES_LIMIT: Final = 1000  # paths
DENIALS_LIMIT: Final = 100
PROBLEMS_LIMIT: Final = 50  # newest
TASKS_LIMIT: Final = 100  # newest running background tasks
RECORDS_LIMIT: Final = 50  # first signals, first degradations
ERRORS_LIMIT: Final = 20  # error texts of a closing statement
SHORT_LIMIT: Final = 4096  # characters of a denied call's input, of an error text
COUNTED_LIMIT: Final = 16  # messages whose tokens may still change: the main agent's and those of subagents beside it


def advance(state: RunState, event: Event) -> RunState:
    """The state after one more event."""
    return replace(_folded(state, event), events=state.events + pieces_of(event))


def _folded(state: RunState, event: Event) -> RunState:
    match event:  # the most frequent first: each class is asked for in turn
        case Noise():
            return state
        case TextWritten():
            return _text_written(state, event)
        case ThinkingWritten():
            return _thinking_written(state, event)
        case ToolCalled():
            return _tool_called(state, event)
        case ToolReturned():
            return _tool_returned(state, event)
        case MessageStarted(parent=parent):
            state = _voided(state, parent)
            return state if parent is not None else replace(state, activity=Phase.REQUESTING)
        case UsageCounted():
            return _usage_counted(state, event)
        case SessionOpened():
            return _session_opened(state, event)
        case StatusChanged(status=status):
            return replace(state, activity=_activity_of(state, status))
        case PermissionAsked() | QuestionAsked():
            return replace(state, questions=state.questions.plus(event), activity=Phase.WAITING)
        case AskWithdrawn(ask_id=ask_id):
            return _went_on(state, state.questions.without(ask_id))
        case Answered():
            return _went_on(state, state.questions.answered(event))
        case ApiRetried():
            return replace(state, retries=state.retries + 1, retry=event, activity=Phase.RETRYING)
        case RateLimited():
            return replace(state, rate_limit=event)
        case ModelSwitched(model=model):
            return replace(state, model=model or state.model)
        case TaskChanged():
            return _task_changed(state, event)
        case AgentFailed(text=text):
            event = replace(event, text=Clipped.of(text, limit=SHORT_LIMIT).text)
            return replace(state, problems=(*state.problems, event)[-PROBLEMS_LIMIT:], failure=event)
        case Finished():
            return _finished(state, event)
        case Unrecognised():
            return replace(state, unrecognised=state.unrecognised + 1)
        case HookRan() | HostAsked() | Queued() | Repeated():
            return state
        case StderrWritten(text=text):
            return replace(state, stderr=state.stderr.plus(text, limit=STDERR_LIMIT))
        case Started():
            return replace(state, started=event, activity=Phase.STARTING)
        case Paused():
            return replace(state, is_paused=True, pauses=state.pauses + 1)
        case Resumed(paused=seconds):
            return replace(state, is_paused=False, paused=state.paused + seconds)
        case StopRequested():
            return replace(state, stop=state.stop or event)
        case Signalled():
            return replace(state, signals=(*state.signals, event)[:RECORDS_LIMIT])
        case Frozen(seconds=seconds):
            return replace(state, frozen=state.frozen + seconds)
        case LimitReached():
            return replace(state, limit=state.limit or event)
        case Degraded():
            return replace(state, degraded=(*state.degraded, event)[:RECORDS_LIMIT])
        case LeftBehind():
            return replace(state, left_behind=event)
        case Exited():
            return replace(state, exited=event)
        case _:
            assert_never(event)


def advance_all(state: RunState, events: Iterable[Event]) -> RunState:
    """The state after more events: what repeated `advance` gives, at a cost that does not grow with the number of pieces of a text."""
    total = state.events
    for event, count in joined(events):
        state = _folded(state, event)
        total += count
    return replace(state, events=total)


# --- text -------------------------------------------------------------------------------------------------------------


def _text_written(state: RunState, event: TextWritten) -> RunState:
    blocks = _written(state, event, BlockKind.TEXT, synthetic=event.synthetic)
    if event.parent is not None or event.synthetic:
        return replace(state, **blocks)
    # A whole text block may come while a call of the same message runs already.
    activity = Phase.TOOL if event.whole and state.busy else Phase.WRITING
    return replace(state, activity=activity, model_spoke=True, **blocks)


def _thinking_written(state: RunState, event: ThinkingWritten) -> RunState:
    blocks = _written(state, event, BlockKind.THINKING, synthetic=False)
    if event.parent is not None:
        return replace(state, **blocks)
    return replace(state, activity=Phase.THINKING, model_spoke=True, **blocks)


def _written(state: RunState, event: TextWritten | ThinkingWritten, kind: BlockKind, *, synthetic: bool) -> dict[str, Any]:
    """What becomes of the fields that have to do with blocks."""
    # A block that is whole stays as it is: if its name comes again, that is another block.
    found = next((i for i in range(len(state.blocks) - 1, -1, -1) if state.blocks[i].name == event.block), None) if state.begun else None
    old = None if found is None or state.blocks[found].whole else state.blocks[found]
    body = Clipped() if old is None or event.whole else old.body
    block = Block(
        name=event.block,
        kind=kind,
        body=body.plus(event.text, limit=BLOCK_LIMIT),
        whole=event.whole,
        parent=event.parent,
        synthetic=synthetic,
    )
    begun = state.begun + (not event.whole)
    if old is not None and found is not None:
        return {"blocks": (*state.blocks[:found], block, *state.blocks[found + 1 :]), "begun": begun - 1}
    surplus = max(0, len(state.blocks) + 1 - BLOCKS_LIMIT)
    return {
        "blocks": (*state.blocks[surplus:], block),
        "begun": begun - _begun(state.blocks[:surplus]),
        "blocks_left_out": state.blocks_left_out + surplus,
    }


def _begun(blocks: tuple[Block, ...]) -> int:
    return sum(not block.whole for block in blocks)


def _voided(state: RunState, parent: str | None) -> RunState:
    """Without what an earlier message of the same agent began and never made whole: its stream was cut, and the message begun anew."""
    if not state.begun and all(tool.whole for tool in state.tools.values()):
        return state
    blocks = tuple(block for block in state.blocks if block.whole or block.parent != parent or not block.message)
    tools = {tool.tool_id: tool for tool in state.tools.values() if tool.whole or tool.parent != parent}
    return replace(state, blocks=blocks, tools=tools, begun=_begun(blocks))


# --- tools ------------------------------------------------------------------------------------------------------------


def _tool_called(state: RunState, event: ToolCalled) -> RunState:
    old = state.tools.get(event.tool_id)
    if old is not None and old.whole:  # told again, or a late piece
        return state
    body = Clipped() if old is None or event.whole else old.input
    tool = Tool(
        tool_id=event.tool_id,
        name=event.name or (old.name if old is not None else ""),
        input=body.plus(event.input, limit=TOOL_TEXT_LIMIT),
        parent=event.parent,
        whole=event.whole,
    )
    state = _with_tool(state, tool)
    if event.parent is not None:
        return state
    return replace(state, activity=Phase.TOOL if event.whole else Phase.WRITING, model_spoke=True)


def _tool_returned(state: RunState, event: ToolReturned) -> RunState:
    old = state.tools.get(event.tool_id) or Tool(tool_id=event.tool_id, name="", parent=event.parent)
    tool = replace(old, result=Clipped.of(event.text, limit=TOOL_TEXT_LIMIT), is_error=event.is_error, path=event.path, whole=True)
    state = _with_tool(state, tool)
    if event.path is not None and event.path not in state.files:
        surplus = max(0, len(state.files) + 1 - FILES_LIMIT)
        state = replace(state, files=(*state.files, event.path)[:FILES_LIMIT], files_left_out=state.files_left_out + surplus)
    questions = state.questions.returned(event.tool_id)
    if event.parent is not None:
        return replace(state, questions=questions)
    return replace(state, questions=questions, activity=Phase.TOOL if state.busy else Phase.REQUESTING)


def _with_tool(state: RunState, tool: Tool) -> RunState:
    tools = {**state.tools, tool.tool_id: tool}
    busy = state.busy + _is_busy(tool) - _is_busy(state.tools.get(tool.tool_id))
    if len(tools) <= TOOLS_LIMIT:
        return replace(state, tools=tools, busy=busy)
    ended = (known.tool_id for known in tools.values() if not known.is_running and known.tool_id != tool.tool_id)
    lost = tools.pop(next(ended, next(iter(tools))))
    return replace(state, tools=tools, busy=busy - _is_busy(lost), tools_left_out=state.tools_left_out + 1)


def _is_busy(tool: Tool | None) -> bool:
    return tool is not None and tool.is_running and tool.parent is None


def _went_on(state: RunState, questions: Questions) -> RunState:
    if questions.open or state.activity is not Phase.WAITING:
        return replace(state, questions=questions)
    return replace(state, questions=questions, activity=Phase.TOOL if state.busy else Phase.REQUESTING)


# --- the rest ---------------------------------------------------------------------------------------------------------

_ACTIVITIES: Final[Mapping[str, Phase]] = {
    "requesting": Phase.REQUESTING,
    "compacting": Phase.REQUESTING,  # the model is asked for a summary
    "requires_action": Phase.WAITING,
    "idle": Phase.WAITING,
}


def _activity_of(state: RunState, status: str) -> Phase:
    if status == "running" and state.activity in {Phase.STARTING, Phase.WAITING}:
        return Phase.TOOL if state.busy else Phase.REQUESTING
    return _ACTIVITIES.get(status, state.activity)


def _session_opened(state: RunState, event: SessionOpened) -> RunState:
    return replace(
        state,
        session_id=event.session_id or state.session_id,
        agent_version=event.version or state.agent_version,
        model=event.model or state.model,
        permission_mode=event.permission_mode or state.permission_mode,
        api_key_source=event.api_key_source or state.api_key_source,
        mcp_servers=event.mcp_servers,
        activity=Phase.REQUESTING,
        failure=None,
        retry=None,
    )


def _usage_counted(state: RunState, event: UsageCounted) -> RunState:
    old = next((message for message in state.counted if message.message_id == event.message_id), Counted(event.message_id, 0, 0))
    # The first figure of a message has its input, the last one its output; neither ever falls.
    new = Counted(event.message_id, max(old.input_tokens, event.input_tokens), max(old.output_tokens, event.output_tokens))
    counted = [*(message for message in state.counted if message.message_id != event.message_id), new]
    if len(counted) > COUNTED_LIMIT:
        oldest, older, *rest = counted
        counted = [Counted("", oldest.input_tokens + older.input_tokens, oldest.output_tokens + older.output_tokens), *rest]
    return replace(state, counted=tuple(counted))


# What `TaskChanged` calls a task that has not ended; every other word is an end (completed, failed, stopped, killed).
_RUNNING: Final = frozenset({"started", "running", "pending", "queued"})


def _task_changed(state: RunState, event: TaskChanged) -> RunState:
    others = {task_id: task for task_id, task in state.tasks.items() if task_id != event.task_id}
    if event.status in _RUNNING:
        known = state.tasks.get(event.task_id)
        description = Clipped.of(event.description or (known.description if known is not None else ""), limit=SHORT_LIMIT).text
        others[event.task_id] = replace(event, description=description)
        if len(others) > TASKS_LIMIT:
            del others[next(iter(others))]
    return replace(state, tasks=others)


def _finished(state: RunState, event: Finished) -> RunState:
    state = _voided(state, None)
    known = {denial.tool_id for denial in state.denials}
    fresh = [
        replace(denial, input=Clipped.of(denial.input, limit=SHORT_LIMIT).text)
        for denial in event.denials
        if not denial.tool_id or denial.tool_id not in known
    ]
    room = max(0, DENIALS_LIMIT - len(state.denials))
    final_text = None if event.text is None else Clipped.of(event.text, limit=FINAL_TEXT_LIMIT)
    return replace(
        state,
        finished=replace(
            event,
            text=None if final_text is None else final_text.text,
            errors=tuple(Clipped.of(error, limit=SHORT_LIMIT).text for error in event.errors[:ERRORS_LIMIT]),
            denials=tuple(fresh[:DENIALS_LIMIT]),
        ),
        finishes=state.finishes + 1,
        final_text=final_text,
        session_id=event.session_id or state.session_id,
        denials=(*state.denials, *fresh[:room]),
        denials_left_out=state.denials_left_out + max(0, len(fresh) - room),
        settled_usage=_sum(state.settled_usage, event.usage),
        counted=(),
        cost=state.cost if event.cost is None else event.cost,
        turns=state.turns if event.turns is None else (state.turns or 0) + event.turns,
        questions=state.questions.closed(),
        activity=Phase.WAITING,
    )


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cache_read_tokens=one.cache_read_tokens + other.cache_read_tokens,
        cache_creation_tokens=one.cache_creation_tokens + other.cache_creation_tokens,
    )
