"""The stdout of `claude -p --output-format stream-json` as events. Knows the CLI's dialect; knows no process, no journal, no clock.

Three properties of that output decide the design (2.1.197 and 2.1.329). Deltas are provisional: only an `assistant` line makes a block whole, and after
a cut stream it belongs to another message. One message comes as several `assistant` lines, one for each block. Subagents' lines come in between, told
apart by `parent_tool_use_id` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Self, TypeVar

import msgspec

from cc_executor.agents.claude import frames, salvage, system
from cc_executor.agents.claude.closing import WINDOW_FULL, Answer, finished, json_text
from cc_executor.agents.claude.control import asked
from cc_executor.agents.framing import LineSplitter, Overlong
from cc_executor.model.event import (
    AgentEvent,
    AgentFailed,
    ApiRetried,
    AskWithdrawn,
    HookRan,
    MessageStarted,
    ModelSwitched,
    Noise,
    RateLimited,
    SessionOpened,
    StatusChanged,
    TaskChanged,
    TextWritten,
    ThinkingWritten,
    ToolCalled,
    ToolReturned,
    Unrecognised,
    UsageCounted,
)

# Characters of an unknown line that its event keeps: enough to see what it is. The journal has all of it.
RAW_LIMIT: Final = 4096

# Messages under way at a time: the main agent's and one for each running subagent. The oldest is forgotten beyond that, and its blocks get new names.
PARENTS_LIMIT: Final = 256

_T = TypeVar("_T")
_LINE: Final = msgspec.json.Decoder(frames.Line)
_TEXT_LINE: Final = msgspec.json.Decoder(frames.TextLine)
_FILE_RESULT: Final = msgspec.json.Decoder(frames.FileResult)
_REFUSED: Final = (*salvage.REFUSED, TypeError)
_StreamLine, _BlockDelta, _TextDelta = frames.StreamLine, frames.BlockDelta, frames.TextDelta  # names of this module are found sooner
_BLOCK_STOP: Final = Noise(what="content_block_stop")
_SYNTHETIC: Final = "<synthetic>"
_MEGABYTES_FROM: Final = 100_000  # bytes; below, "0.0 MB" would say nothing
_LINE_TYPES: Final[dict[str, type[msgspec.Struct]]] = {
    "stream_event": frames.StreamLine,
    "assistant": frames.AssistantLine,
    "user": frames.UserLine,
    "result": frames.ResultLine,
    "rate_limit_event": frames.RateLimitLine,
    "control_request": frames.ControlRequestLine,
}


class _Stream:
    """Where the deltas of one agent are: message, block, and for a tool call its name, which only `content_block_start` carries."""

    __slots__ = ("block", "index", "message_id", "opened", "tool_id", "tool_name")

    def __init__(self, message_id: str) -> None:
        self.message_id = message_id
        self.opened = False  # a block has begun and was not yet told whole
        self.enter(0)

    def enter(self, index: int, *, tool_id: str = "", tool_name: str = "") -> None:
        self.index = index
        self.block = f"{self.message_id}:{index}"
        self.tool_id = tool_id
        self.tool_name = tool_name

    def copy(self) -> _Stream:
        twin = _Stream(self.message_id)
        twin.enter(self.index, tool_id=self.tool_id, tool_name=self.tool_name)
        twin.opened = self.opened
        return twin


class ClaudeDecoder:
    """A `cc_executor.agents.base.Decoder` for Claude Code. Every line gives at least one event; none raises."""

    __slots__ = ("_answer", "_lines", "_streams", "_whole")

    def __init__(self) -> None:
        self._lines = LineSplitter()
        self._answer = Answer()
        self._streams: dict[str | None, _Stream] = {}  # by parent
        self._whole: dict[
            str | None, tuple[str, int]
        ] = {}  # by parent: the message of the last whole block, and the next block's index in it

    def feed(self, data: bytes) -> list[AgentEvent]:
        """The events of every line that `data` completes."""
        return self._events(self._lines.feed(data))

    def close(self) -> list[AgentEvent]:
        """The events of an unfinished last line."""
        return self._events(self._lines.close())

    def copy(self) -> Self:
        """An independent decoder in the same state."""
        twin = type(self)()
        twin._lines = self._lines.copy()
        twin._answer = self._answer.copy()
        twin._streams = {parent: stream.copy() for parent, stream in self._streams.items()}
        twin._whole = dict(self._whole)
        return twin

    # --- lines ---

    def _events(self, lines: list[bytes | Overlong]) -> list[AgentEvent]:
        events: list[AgentEvent] = []
        decode, piece_of, streams = _LINE.decode, _TEXT_LINE.decode, self._streams
        # Nine of ten lines of a talkative run are pieces of the text before them: they become one event, without an object for each.
        text: list[str] = []
        block, index, parent = "", -1, None
        for line in lines:
            # An Overlong is refused with a TypeError, which costs other lines nothing.
            if text:
                try:
                    more = piece_of(line)  # pyright: ignore[reportArgumentType] - as above
                except _REFUSED:
                    pass
                else:
                    if more.event.index == index and more.parent_tool_use_id == parent:
                        text.append(more.event.delta.text)
                        continue
                events.append(_written(block, text, parent))
                text = []
            try:
                frame = decode(line)  # pyright: ignore[reportArgumentType] - as above
            except _REFUSED:
                events += self._refused(line)
                continue
            if type(frame) is _StreamLine and type(payload := frame.event) is _BlockDelta and type(delta := payload.delta) is _TextDelta:
                stream = streams.get(frame.parent_tool_use_id)
                if stream is not None and stream.index == payload.index:
                    text, block, index, parent = [delta.text], stream.block, payload.index, frame.parent_tool_use_id
                    continue
            events += self._mapped(frame, line)  # pyright: ignore[reportArgumentType] - decoded, so these are bytes
        if text:
            events.append(_written(block, text, parent))
        return events

    def _mapped(self, frame: frames.Line, line: bytes) -> list[AgentEvent]:
        match frame:
            case frames.StreamLine():
                return self._stream_event(frame, line)
            case frames.SystemLine(subtype=subtype):
                return _system(subtype, line)
            case frames.AssistantLine():
                return self._assistant(frame, line)
            case frames.UserLine():
                if frame.isSynthetic and frame.parent_tool_use_id is None:
                    self._answer.prompt()
                return _user(frame)
            case frames.ResultLine():
                return [finished(frame, self._answer)]
            case frames.RateLimitLine(rate_limit_info=info):
                window = info.rateLimitType or ""
                return [RateLimited(status=info.status, resets_at=info.resetsAt, window=window, utilization=info.utilization)]
            case frames.ControlRequestLine():
                return [asked(frame)]
            case frames.ControlCancelLine(request_id=ask_id):
                return [AskWithdrawn(ask_id=ask_id)]
            case _:
                return [Noise(what=str(frame.__struct_config__.tag))]

    def _refused(self, line: bytes | Overlong) -> list[AgentEvent]:
        if isinstance(line, Overlong):
            return [Unrecognised(what="overlong", raw=f"{_bounded(line.head)} ({line.size:,} bytes)")]
        if not line.strip():
            return [Noise(what="blank")]
        value = salvage.parsed(line)
        if value is None:
            return [Unrecognised(what="not JSON", raw=_bounded(line))]
        tag = value.get("type")
        try:
            if tag == "system":
                return _system(str(value.get("subtype", "?")), line)
            kind = _LINE_TYPES.get(tag) if isinstance(tag, str) else None
            if kind is not None:
                return self._mapped(salvage.salvaged(kind, value), line)  # pyright: ignore[reportArgumentType]  # the table holds members of Line only
        except salvage.Hopeless:
            pass
        return [Unrecognised(what=salvage.kind_of(value), raw=_bounded(line))]

    # --- messages ---

    def _stream_event(self, frame: frames.StreamLine, line: bytes) -> list[AgentEvent]:
        parent = frame.parent_tool_use_id
        match frame.event:
            case frames.BlockDelta(index=index, delta=delta):
                stream = self._stream(frame)
                if stream.index != index:
                    stream.enter(index)
                return [_piece(stream, delta, parent)]
            case frames.MessageStart(message=message):
                message_id = message.id or frame.api_message_id or "?"
                _remember(self._streams, parent, _Stream(message_id))
                _remember(self._whole, parent, (message_id, 0))
                if parent is None:
                    self._answer.begin()
                return [MessageStarted(message_id=message_id, parent=parent, model=message.model), _counted(message_id, message.usage)]
            case frames.MessageDelta(delta=closing, usage=usage):
                if parent is None:
                    self._answer.close(closing.stop_reason)
                return [_counted(self._stream(frame).message_id, usage)]
            case frames.BlockStart(index=index, content_block=block):
                return [self._block_started(self._stream(frame), index, block, parent, line)]
            case frames.BlockStop():
                self._stream(frame).opened = False
                return [_BLOCK_STOP]
            case frames.StreamFault(error=fault):
                return [AgentFailed(code=fault.type, text=fault.message)]
            case frames.MessageStop() | frames.Ping():
                if parent is None and frame.abandoned_blocks is not None:
                    self._answer.cut()
                return [Noise(what=str(frame.event.__struct_config__.tag))]

    def _stream(self, frame: frames.StreamLine) -> _Stream:
        """The stream that the line belongs to; a new one where its start was not seen."""
        stream = self._streams.get(frame.parent_tool_use_id)
        if stream is None:
            stream = _Stream(frame.api_message_id or "?")
            _remember(self._streams, frame.parent_tool_use_id, stream)
        return stream

    def _block_started(self, stream: _Stream, index: int, block: frames.AssistantBlock, parent: str | None, line: bytes) -> AgentEvent:
        stream.enter(index)
        stream.opened = True
        match block:
            case frames.ToolUseBlock(id=tool_id, name=name) | frames.ServerToolUseBlock(id=tool_id, name=name):
                stream.enter(index, tool_id=tool_id, tool_name=name)
                return ToolCalled(tool_id=tool_id, name=name, whole=False, parent=parent)
            case frames.ThinkingBlock(thinking=text):
                return ThinkingWritten(block=stream.block, text=text, parent=parent)
            case frames.TextBlock(text=text) if text:
                return TextWritten(block=stream.block, text=text, parent=parent)
            case frames.TextBlock() | frames.RedactedBlock():
                return Noise(what="content_block_start")
            case frames.OtherBlock(of=of):
                return Unrecognised(what=f"content_block_start/{of}", raw=_bounded(line))

    def _assistant(self, frame: frames.AssistantLine, line: bytes) -> list[AgentEvent]:
        parent, message = frame.parent_tool_use_id, frame.message
        synthetic = message.model == _SYNTHETIC
        blocks = message.content if isinstance(message.content, list) else [frames.TextBlock(text=message.content)]
        events: list[AgentEvent] = []
        last_id, index = self._whole.get(parent, (None, 0))
        if last_id != message.id:
            # No message_start came: a subagent, a synthetic message, or the CLI's non-streaming second try after a cut stream.
            events.append(MessageStarted(message_id=message.id, parent=parent, model="" if synthetic else message.model))
            index = 0
            if parent is None and not synthetic:
                self._answer.begin()
        for block in blocks:
            stream = self._streams.get(parent)
            if stream is not None and stream.opened and stream.message_id == message.id:
                index, stream.opened = stream.index, False
            if parent is None and not synthetic and isinstance(block, frames.TextBlock):
                self._answer.write(block.text)
            events.append(_whole_block(block, f"{message.id}:{index}", parent, line, synthetic=synthetic))
            index += 1
        _remember(self._whole, parent, (message.id, index))
        if frame.error:
            text = "\n".join(block.text for block in blocks if isinstance(block, frames.TextBlock))
            # The CLI has one code for both limits; the API told them apart.
            full = frame.error == "max_output_tokens" and self._answer.stop_reason == WINDOW_FULL
            events.append(AgentFailed(code=WINDOW_FULL if full else frame.error, text=text[:RAW_LIMIT]))
        return events or [Noise(what="assistant")]


def _counted(message_id: str, usage: frames.TokenCounts | None) -> UsageCounted:
    usage = usage or frames.TokenCounts()
    return UsageCounted(
        message_id=message_id,
        input_tokens=usage.input_tokens or 0,
        output_tokens=usage.output_tokens or 0,
        cache_read_tokens=usage.cache_read_input_tokens or 0,
        cache_creation_tokens=usage.cache_creation_input_tokens or 0,
    )


def _written(block: str, pieces: list[str], parent: str | None) -> TextWritten:
    return TextWritten(block=block, text="".join(pieces), parent=parent, pieces=len(pieces))


def _remember(table: dict[str | None, _T], parent: str | None, value: _T) -> None:
    table.pop(parent, None)  # so that the table's order is that of last use
    table[parent] = value
    if len(table) > PARENTS_LIMIT:
        del table[next(iter(table))]


def _piece(
    stream: _Stream,
    delta: frames.TextDelta | frames.ThinkingDelta | frames.InputDelta | frames.SignatureDelta | frames.CitationsDelta,
    parent: str | None,
) -> AgentEvent:
    match delta:
        case frames.TextDelta(text=text):
            return TextWritten(block=stream.block, text=text, parent=parent)
        case frames.ThinkingDelta(thinking=text):
            return ThinkingWritten(block=stream.block, text=text, parent=parent)
        case frames.InputDelta(partial_json=text):
            if not stream.tool_id:  # its start was not seen: the piece belongs to no call that could be named
                return Noise(what="input_json_delta")
            return ToolCalled(tool_id=stream.tool_id, name=stream.tool_name, input=text, whole=False, parent=parent)
        case frames.SignatureDelta() | frames.CitationsDelta():
            return Noise(what=str(delta.__struct_config__.tag))


def _whole_block(block: frames.AssistantBlock, name: str, parent: str | None, line: bytes, *, synthetic: bool) -> AgentEvent:
    match block:
        case frames.TextBlock(text=text):
            return TextWritten(block=name, text=text, whole=True, parent=parent, synthetic=synthetic)
        case frames.ThinkingBlock(thinking=text):
            return ThinkingWritten(block=name, text=text, whole=True, parent=parent)
        case frames.RedactedBlock():
            return ThinkingWritten(block=name, text="", whole=True, parent=parent)
        case frames.ToolUseBlock(id=tool_id, name=tool) | frames.ServerToolUseBlock(id=tool_id, name=tool):
            return ToolCalled(tool_id=tool_id, name=tool, input=json_text(block.input), parent=parent)
        case frames.OtherBlock(of=of):
            return Unrecognised(what=f"assistant/{of}", raw=_bounded(line))


# --- tool results ---------------------------------------------------------------------------------------------------


def _user(frame: frames.UserLine) -> list[AgentEvent]:
    content = frame.message.content
    results = [block for block in content if isinstance(block, frames.ToolResultBlock)] if isinstance(content, list) else []
    path = _written_path(frame.tool_use_result) if len(results) == 1 and not results[0].is_error else None
    events: list[AgentEvent] = [
        ToolReturned(
            tool_id=block.tool_use_id,
            text=_result_text(block.content),
            is_error=bool(block.is_error),
            path=path,
            parent=frame.parent_tool_use_id,
        )
        for block in results
    ]
    return events or [Noise(what="user")]


def _result_text(content: str | list[frames.ResultPart] | None) -> str:
    if content is None:
        return ""
    return content if isinstance(content, str) else "\n".join(map(_part_text, content))


def _part_text(part: frames.ResultPart) -> str:
    match part:
        case frames.TextBlock(text=text):
            return text
        case frames.ImageBlock(source=source):
            return f"[image, {_size(source.data)}]"
        case frames.DocumentBlock(source=source):
            return f"[document, {_size(source.data)}]"
        case frames.ToolReferenceBlock(tool_name=name):
            return f"[tool {name}]"
        case frames.OtherBlock(of=of):
            return f"[{of}]"


def _size(data: msgspec.Raw) -> str:
    """The size of what a JSON string in base64 stands for; four characters are three bytes."""
    size = max(0, memoryview(data).nbytes - 2) * 3 // 4
    return f"{size / 1e6:.1f} MB" if size >= _MEGABYTES_FROM else f"{size / 1e3:.1f} kB"


def _written_path(result: msgspec.Raw) -> str | None:
    """The file that a tool wrote. Write says create or update; Edit says no type and a patch; others name files that they did not write."""
    if bytes(memoryview(result)[:1]) != b"{":
        return None
    try:
        file = _FILE_RESULT.decode(result)
    except salvage.REFUSED:
        return None
    wrote = file.type in ("create", "update", "edit") or (file.type is None and bool(memoryview(file.structuredPatch).nbytes))
    return file.filePath if wrote else None


# --- system lines by subtype ----------------------------------------------------------------------------------------


def _opened(init: system.Init) -> AgentEvent:
    return SessionOpened(
        session_id=init.session_id,
        model=init.model,
        cwd=init.cwd,
        permission_mode=init.permissionMode,
        version=init.claude_code_version,
        api_key_source=init.apiKeySource,
        tools=tuple(init.tools),
        mcp_servers=tuple((server.name, server.status) for server in init.mcp_servers),
    )


def _retried(retry: system.ApiRetry) -> AgentEvent:
    return ApiRetried(
        attempt=retry.attempt,
        max_attempts=retry.max_retries,
        delay=retry.retry_delay_ms / 1000,
        status=retry.error_status,
        error=retry.error or "",
    )


def _task(status: str) -> Callable[[system.Task], AgentEvent]:
    def change(task: system.Task) -> AgentEvent:
        said = task.summary or task.description or task.patch.description or ""
        return TaskChanged(
            task_id=task.task_id,
            status=task.status or task.patch.status or status,
            description=said,
            background=task.is_backgrounded or task.patch.is_backgrounded,
        )

    return change


def _hook_done(hook: system.Hook) -> AgentEvent:
    return HookRan(name=hook.hook_name, status=hook.outcome or "done", text=(hook.stderr or hook.stdout or "")[:RAW_LIMIT])


def _refusal(refusal: system.Refusal) -> AgentEvent:
    return AgentFailed(code="refusal", text=refusal.content or refusal.api_refusal_category or "")


# One row for each subtype that says something to us: its type, and the event that it becomes.
_SYSTEM: Final[dict[str, tuple[Any, Callable[[Any], AgentEvent]]]] = {
    "init": (system.Init, _opened),
    "status": (system.Status, lambda said: StatusChanged(status=said.status or "running")),  # null ends `compacting`
    "session_state_changed": (system.SessionState, lambda said: StatusChanged(status=said.state)),
    "api_retry": (system.ApiRetry, _retried),
    "model_fallback": (system.ModelFallback, lambda said: ModelSwitched(model=said.fallback_model, reason=said.trigger or "")),
    "model_refusal_fallback": (
        system.ModelFallback,
        lambda said: ModelSwitched(model=said.fallback_model, reason=said.trigger or "refusal"),
    ),
    "model_refusal_no_fallback": (system.Refusal, _refusal),
    "task_started": (system.Task, _task("started")),
    "task_progress": (system.Task, _task("running")),
    "task_updated": (system.Task, _task("running")),
    "task_notification": (system.Task, _task("completed")),
    "hook_started": (system.Hook, lambda hook: HookRan(name=hook.hook_name, status="started")),
    "hook_response": (system.Hook, _hook_done),
}
_SYSTEM_DECODERS: Final = {subtype: msgspec.json.Decoder(kind) for subtype, (kind, _) in _SYSTEM.items()}

# Known, and without meaning for us. The first row was seen, the others are in the schema of 2.1.197.
_SYSTEM_NOISE: Final = frozenset({
    "thinking_tokens", "compact_boundary", "notification", "informational", "permission_denied", "background_tasks_changed",
    "hook_progress", "local_command_output", "plugin_install", "files_persisted", "commands_changed", "memory_recall", "elicitation_complete",
    "mirror_error", "post_turn_summary", "task_summary", "worker_shutting_down",
})  # fmt: skip


def _system(subtype: str, line: bytes) -> list[AgentEvent]:
    if subtype in _SYSTEM_NOISE:
        return [Noise(what=f"system/{subtype}")]
    decoder = _SYSTEM_DECODERS.get(subtype)
    if decoder is None:
        return [Unrecognised(what=salvage.word(f"system/{subtype}"), raw=_bounded(line))]
    kind, event = _SYSTEM[subtype]
    try:
        return [event(decoder.decode(line))]
    except salvage.REFUSED:
        pass
    try:
        return [event(salvage.salvaged(kind, salvage.parsed(line)))]
    except salvage.Hopeless:
        return [Unrecognised(what=f"system/{subtype}", raw=_bounded(line))]


# --- text -------------------------------------------------------------------------------------------------------------


def _bounded(line: bytes) -> str:
    text = line[:RAW_LIMIT].decode("utf-8", "replace")
    return text if len(line) <= RAW_LIMIT else f"{text}…"
