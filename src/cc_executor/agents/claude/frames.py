"""The lines of `claude -p --output-format stream-json`, typed. Knows their shape; knows nothing of what they mean to us.

Lenient on purpose: fields that we do not read are skipped, fields that we read have defaults, and an unknown tag is a `msgspec.ValidationError`
that `decode` turns into an `Unrecognised`. Between 2.1.197 and 2.1.329 keys moved, and fields and values were added: nothing here is by position.
`msgspec.Raw` keeps JSON text as it came, without building objects for it.
"""

from __future__ import annotations

from typing import Final

import msgspec

EMPTY: Final = msgspec.Raw(b"")


class _Frame(msgspec.Struct, frozen=True, gc=False):
    pass


# --- the blocks of a message ----------------------------------------------------------------------------------------


class TextBlock(_Frame, frozen=True, tag_field="type", tag="text"):
    """Text."""

    text: str = ""


class ThinkingBlock(_Frame, frozen=True, tag_field="type", tag="thinking"):
    """Thinking."""

    thinking: str = ""


class RedactedBlock(_Frame, frozen=True, tag_field="type", tag="redacted_thinking"):
    """Thinking that the API keeps to itself."""


class ToolUseBlock(_Frame, frozen=True, tag_field="type", tag="tool_use"):
    """A call of one of the CLI's tools."""

    id: str = ""
    name: str = ""
    input: msgspec.Raw = EMPTY


class ServerToolUseBlock(_Frame, frozen=True, tag_field="type", tag="server_tool_use"):
    """A tool that the API runs itself (web search)."""

    id: str = ""
    name: str = ""
    input: msgspec.Raw = EMPTY


class ImageSource(_Frame, frozen=True):
    """Base64 of an image or a document."""

    data: msgspec.Raw = EMPTY


class ImageBlock(_Frame, frozen=True, tag_field="type", tag="image"):
    """An image."""

    source: ImageSource = ImageSource()


class DocumentBlock(_Frame, frozen=True, tag_field="type", tag="document"):
    """A document, a PDF for instance."""

    source: ImageSource = ImageSource()


class ToolReferenceBlock(_Frame, frozen=True, tag_field="type", tag="tool_reference"):
    """The name of a tool that a search found."""

    tool_name: str = ""


class OtherBlock(_Frame, frozen=True, tag_field="type", tag="cc_executor:other"):
    """A block of a kind that is not known here; `decode` writes it in the place of one. `of`: its kind."""

    of: str = ""


ResultPart = TextBlock | ImageBlock | DocumentBlock | ToolReferenceBlock | OtherBlock


class ToolResultBlock(_Frame, frozen=True, tag_field="type", tag="tool_result"):
    """What a tool gave back; `content` is text or a list."""

    tool_use_id: str = ""
    content: str | list[ResultPart] | None = None
    is_error: bool | None = None


AssistantBlock = TextBlock | ThinkingBlock | RedactedBlock | ToolUseBlock | ServerToolUseBlock | OtherBlock
UserBlock = ToolResultBlock | TextBlock | ImageBlock | DocumentBlock | OtherBlock


# --- stream_event: the Messages API's own events ------------------------------------------------------------------


class TokenCounts(_Frame, frozen=True):
    """Every number may be null: the CLI's own synthetic messages have null in some."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class MessageHead(_Frame, frozen=True):
    """What `message_start` says of a message."""

    id: str = ""
    model: str = ""
    usage: TokenCounts | None = None


class MessageStart(_Frame, frozen=True, tag_field="type", tag="message_start"):
    """A message begins."""

    message: MessageHead = MessageHead()


class BlockStart(_Frame, frozen=True, tag_field="type", tag="content_block_start"):
    """A block begins; for a tool call, the one place with its name."""

    index: int = 0
    content_block: AssistantBlock = OtherBlock()


class TextDelta(_Frame, frozen=True, tag_field="type", tag="text_delta"):
    """A piece of text."""

    text: str = ""


class ThinkingDelta(_Frame, frozen=True, tag_field="type", tag="thinking_delta"):
    """A piece of thinking."""

    thinking: str = ""


class InputDelta(_Frame, frozen=True, tag_field="type", tag="input_json_delta"):
    """A piece of the JSON text of a call's input."""

    partial_json: str = ""


class SignatureDelta(_Frame, frozen=True, tag_field="type", tag="signature_delta"):
    """The signature of thinking."""


class CitationsDelta(_Frame, frozen=True, tag_field="type", tag="citations_delta"):
    """A citation."""


class BlockDelta(_Frame, frozen=True, tag_field="type", tag="content_block_delta"):
    """A piece of a block."""

    delta: TextDelta | ThinkingDelta | InputDelta | SignatureDelta | CitationsDelta
    index: int = 0


class BlockStop(_Frame, frozen=True, tag_field="type", tag="content_block_stop"):
    """A block ends."""

    index: int = 0


class ClosingDelta(_Frame, frozen=True):
    """Why a message ends."""

    stop_reason: str | None = None


class MessageDelta(_Frame, frozen=True, tag_field="type", tag="message_delta"):
    """The message's closing figures."""

    delta: ClosingDelta = ClosingDelta()
    usage: TokenCounts | None = None


class MessageStop(_Frame, frozen=True, tag_field="type", tag="message_stop"):
    """A message ends."""


class Ping(_Frame, frozen=True, tag_field="type", tag="ping"):
    """A sign of life of the API."""


class ApiFault(_Frame, frozen=True):
    """An error of the API."""

    type: str = ""
    message: str = ""


class StreamFault(_Frame, frozen=True, tag_field="type", tag="error"):
    """An error in the middle of a stream."""

    error: ApiFault = ApiFault()


StreamPayload = BlockDelta | BlockStart | BlockStop | MessageStart | MessageDelta | MessageStop | Ping | StreamFault


# --- the lines ------------------------------------------------------------------------------------------------------


class AbandonedBlocks(_Frame, frozen=True):
    """A message was cut, and its blocks from this one on are void (2.1.329)."""

    from_block_index: int = 0


class StreamLine(_Frame, frozen=True, tag_field="type", tag="stream_event"):
    """One event of the Messages API."""

    event: StreamPayload
    parent_tool_use_id: str | None = None
    api_message_id: str | None = None  # since some version between 2.1.197 and 2.1.329
    abandoned_blocks: AbandonedBlocks | None = None


class TextPiece(_Frame, frozen=True, tag_field="type", tag="content_block_delta"):
    """A `BlockDelta` that can only be a piece of text: what need not be chosen among is decoded sooner."""

    delta: TextDelta
    index: int = 0


class TextLine(_Frame, frozen=True, tag_field="type", tag="stream_event"):
    """The `StreamLine` of a piece of text."""

    event: TextPiece
    parent_tool_use_id: str | None = None


class AssistantMessage(_Frame, frozen=True):
    """A message, or one block of it."""

    id: str = ""
    model: str = ""
    content: str | list[AssistantBlock] = ""


class AssistantLine(_Frame, frozen=True, tag_field="type", tag="assistant"):
    """Whole blocks: in the versions seen, one for each line."""

    message: AssistantMessage = AssistantMessage()
    parent_tool_use_id: str | None = None
    error: str | None = None


class UserMessage(_Frame, frozen=True):
    """Tool results, or text that the CLI adds."""

    content: str | list[UserBlock] = ""


class UserLine(_Frame, frozen=True, tag_field="type", tag="user"):
    """A message to the model."""

    message: UserMessage = UserMessage()
    parent_tool_use_id: str | None = None
    tool_use_result: msgspec.Raw = EMPTY
    isSynthetic: bool = False  # noqa: N815  # the CLI's own spelling


class FileResult(_Frame, frozen=True):
    """What `tool_use_result` of Write and Edit have in common; `type` is create or update, and absent for Edit."""

    filePath: str | None = None  # noqa: N815  # the CLI's own spelling
    structuredPatch: msgspec.Raw = EMPTY  # noqa: N815
    type: str | None = None


class DenialItem(_Frame, frozen=True):
    """A call that was not allowed."""

    tool_name: str = ""
    tool_use_id: str = ""
    tool_input: msgspec.Raw = EMPTY


class ModelUse(_Frame, frozen=True):
    """What one model has cost."""

    costUSD: float = 0.0  # noqa: N815  # the CLI's own spelling


class ResultLine(_Frame, frozen=True, tag_field="type", tag="result"):
    """The closing statement of a turn."""

    subtype: str = ""
    is_error: bool = False
    result: str | None = None
    errors: list[str] | None = None
    api_error_status: int | None = None
    terminal_reason: str | None = None
    stop_reason: str | None = None
    structured_output: msgspec.Raw = EMPTY
    permission_denials: list[DenialItem] | None = None
    usage: TokenCounts | None = None
    total_cost_usd: float | None = None
    model_usage_since_last_result: dict[str, ModelUse] | None = None
    num_turns: int | None = None
    duration_ms: float | None = None
    session_id: str = ""


class RateLimitInfo(_Frame, frozen=True):
    """A subscription's window."""

    status: str = ""
    resetsAt: float | None = None  # noqa: N815  # the CLI's own spelling
    rateLimitType: str | None = None  # noqa: N815
    utilization: float | None = None


class RateLimitLine(_Frame, frozen=True, tag_field="type", tag="rate_limit_event"):
    """News of a subscription's window."""

    rate_limit_info: RateLimitInfo = RateLimitInfo()


class ControlAsk(_Frame, frozen=True):
    """What the CLI asks of its host."""

    subtype: str = ""
    tool_name: str = ""
    tool_use_id: str = ""
    input: msgspec.Raw = EMPTY
    permission_suggestions: msgspec.Raw = EMPTY
    mcp_server_name: str = ""  # these four: an elicitation
    message: str = ""
    url: str = ""
    requested_schema: msgspec.Raw = EMPTY


class UserOption(_Frame, frozen=True):
    """One answer to choose."""

    label: str = ""
    description: str = ""


class UserQuestion(_Frame, frozen=True):
    """One question of `AskUserQuestion`."""

    question: str
    header: str = ""
    options: list[UserOption] = []
    multiSelect: bool = False  # noqa: N815  # the CLI's own spelling


class UserQuestions(_Frame, frozen=True):
    """The input of `AskUserQuestion`."""

    questions: list[UserQuestion]


class ControlRequestLine(_Frame, frozen=True, tag_field="type", tag="control_request"):
    """The CLI asks its host."""

    request_id: str = ""
    request: ControlAsk = ControlAsk()


class SystemLine(_Frame, frozen=True, tag_field="type", tag="system"):
    """Only the subtype; the rest is decoded again by its own type, because one field name has several types among them."""

    subtype: str = ""


class ControlResponseLine(_Frame, frozen=True, tag_field="type", tag="control_response"):
    """An answer to a request of the host."""


class ControlCancelLine(_Frame, frozen=True, tag_field="type", tag="control_cancel_request"):
    """The CLI takes a request back."""

    request_id: str = ""


class KeepAliveLine(_Frame, frozen=True, tag_field="type", tag="keep_alive"):
    """A sign of life."""


# These five are in the schema of 2.1.197 and were never provoked.
class ToolProgressLine(_Frame, frozen=True, tag_field="type", tag="tool_progress"):
    """A tool still runs."""


class ToolSummaryLine(_Frame, frozen=True, tag_field="type", tag="tool_use_summary"):
    """A summary of calls."""


class AuthStatusLine(_Frame, frozen=True, tag_field="type", tag="auth_status"):
    """The state of a login."""


class SuggestionLine(_Frame, frozen=True, tag_field="type", tag="prompt_suggestion"):
    """A suggestion for the next prompt."""


class MirrorLine(_Frame, frozen=True, tag_field="type", tag="transcript_mirror"):
    """A line of the transcript."""


QuietLine = (
    ControlResponseLine
    | ControlCancelLine
    | KeepAliveLine
    | ToolProgressLine
    | ToolSummaryLine
    | AuthStatusLine
    | SuggestionLine
    | MirrorLine
)
Line = StreamLine | SystemLine | AssistantLine | UserLine | ResultLine | RateLimitLine | ControlRequestLine | QuietLine
