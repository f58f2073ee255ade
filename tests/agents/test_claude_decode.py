from __future__ import annotations

import json
from collections import Counter
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cc_executor.agents.claude.closing import EARLIER_LIMIT
from cc_executor.agents.claude.decode import PARENTS_LIMIT, RAW_LIMIT, ClaudeDecoder
from cc_executor.model.event import (
    AgentEvent,
    AgentFailed,
    ApiRetried,
    AskWithdrawn,
    Denial,
    Finished,
    HookRan,
    HostAsked,
    MessageStarted,
    ModelSwitched,
    Noise,
    PermissionAsked,
    RateLimited,
    SessionOpened,
    StatusChanged,
    TaskChanged,
    TextWritten,
    ThinkingWritten,
    ToolCalled,
    ToolReturned,
    Unrecognised,
    Usage,
    UsageCounted,
)
from support.recordings import CLAUDE, EXCHANGES, OTHERS, Recording, events_of, together

SMALL = [recording for recording in CLAUDE if 0 < recording.path.stat().st_size < 30_000]


def decoded(data: bytes, cuts: list[int] | None = None) -> list[AgentEvent]:
    decoder = ClaudeDecoder()
    edges = [0, *(cuts or []), len(data)]
    return [event for a, b in pairwise(edges) for event in decoder.feed(data[a:b])] + decoder.close()


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def delta(text: str, *, index: int = 0, parent: str | None = None) -> bytes:
    event = {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}}
    return line(type="stream_event", event=event, parent_tool_use_id=parent)


def started(message_id: str, parent: str | None = None) -> bytes:
    event = {"type": "message_start", "message": {"id": message_id, "usage": {"input_tokens": 3, "output_tokens": 1}}}
    return line(type="stream_event", event=event, parent_tool_use_id=parent)


def assistant(message_id: str, *content: dict[str, Any], parent: str | None = None, **more: Any) -> bytes:
    message = {"id": message_id, "model": more.pop("model", "m"), "content": list(content)}
    return line(type="assistant", message=message, parent_tool_use_id=parent, **more)


# --- answers over several messages -------------------------------------------------------------------------------------


def closed(stop_reason: str) -> bytes:
    return line(type="stream_event", event={"type": "message_delta", "delta": {"stop_reason": stop_reason}}, parent_tool_use_id=None)


def result(text: str, **more: Any) -> bytes:
    return line(type="result", subtype="success", result=text, **{"is_error": False} | more)


ABANDONED = line(type="stream_event", event={"type": "message_stop"}, abandoned_blocks={"from_block_index": 1})
RESUME = line(type="user", message={"role": "user", "content": [{"type": "text", "text": "Resume."}]}, isSynthetic=True)


def in_subagent(said: bytes) -> bytes:
    """The same line, of the subagent of the call `t`."""
    return line(**json.loads(said) | {"parent_tool_use_id": "t"})


def text_block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def final(*lines: bytes) -> str | None:
    *_, last = decoded(b"".join(lines))
    assert isinstance(last, Finished)
    return last.text


def test_an_answer_that_was_cut_and_resumed_is_whole() -> None:
    first = started("A") + assistant("A", text_block("one ")) + delta("lost", index=1)
    second = started("B") + assistant("B", text_block("two "))
    last = started("C") + assistant("C", text_block("three"))
    assert final(first, ABANDONED, RESUME, last, result("three")) == "one three"
    assert final(first, closed("max_tokens"), RESUME, last, result("three")) == "one three"
    assert final(first, ABANDONED, RESUME, second, closed("max_tokens"), RESUME, last, result("three")) == "one two three"


def test_of_an_answer_that_is_too_long_to_be_put_together_the_last_message_is_told() -> None:
    first = started("A") + assistant("A", text_block("x" * (EARLIER_LIMIT + 1)))
    last = started("B") + assistant("B", text_block("two"))
    assert final(first, ABANDONED, RESUME, last, result("two")) == "two"


def test_messages_that_are_no_continuation_stay_apart() -> None:
    first = started("A") + assistant("A", text_block("one "))
    second = started("B") + assistant("B", text_block("two"))
    tool = line(type="user", message={"content": [{"type": "tool_result", "tool_use_id": "t", "content": "x"}]}, parent_tool_use_id=None)
    assert final(first, closed("tool_use"), tool, second, result("two")) == "two"
    assert final(first, closed("end_turn"), RESUME, second, result("two")) == "two"  # another turn: a command in the background has ended
    assert final(first, ABANDONED, second, result("two")) == "two"  # asked again from the start
    assert final(first, RESUME, second, result("two")) == "two"  # nothing says that it was cut
    assert final(first, ABANDONED, RESUME, second, result("something else")) == "something else"
    assert final(first, ABANDONED, RESUME, second, result("two", is_error=True)) == "two"
    assert final(first, ABANDONED, tool, second, result("two")) == "two"  # the model went on by itself, with a tool's result
    assert final(first, ABANDONED, in_subagent(RESUME), second, result("two")) == "two"  # a subagent was told to go on
    assert final(first, in_subagent(ABANDONED), RESUME, second, result("two")) == "two"  # a subagent's message was cut
    subagent = started("S", "t") + assistant("S", text_block("sub"), parent="t")
    assert final(first, ABANDONED, RESUME, subagent, second, result("two")) == "one two"


def test_a_copy_made_between_the_messages_of_an_answer_knows_the_earlier_ones() -> None:
    lines = (
        started("A"),
        assistant("A", text_block("one ")),
        ABANDONED,
        RESUME,
        started("B"),
        assistant("B", text_block("two")),
        result("two"),
    )
    decoder, events = ClaudeDecoder(), list[AgentEvent]()
    for each in lines:
        decoder = decoder.copy()
        events += decoder.feed(each)
    assert isinstance(events[-1], Finished)
    assert events[-1].text == "one two"


def costs(*lines: bytes) -> list[float | None]:
    return [event.cost for event in decoded(b"".join(lines)) if isinstance(event, Finished)]


def test_what_a_resumed_session_had_cost_before_is_not_counted_again() -> None:
    def since(cost: float) -> dict[str, Any]:
        return {"m": {"costUSD": cost / 2}, "n": {"costUSD": cost / 2}}

    fresh = result("x", total_cost_usd=0.012, model_usage_since_last_result=since(0.012))
    assert costs(fresh) == [0.012]
    resumed = (
        result("x", total_cost_usd=0.036, model_usage_since_last_result=since(0.012)),
        result("y", total_cost_usd=0.044, model_usage_since_last_result=since(0.008)),
    )
    assert costs(*resumed) == pytest.approx([0.012, 0.020])
    assert costs(result("x", total_cost_usd=0.036), result("y", total_cost_usd=0.048)) == [0.036, 0.048], "2.1.197 begins at 0"
    assert costs(result("x", model_usage_since_last_result=since(0.012)), result("y")) == [None, None]


def test_all_that_the_closing_statement_says_is_kept() -> None:
    counts = {"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 4}
    said = result(
        "x", is_error=True, errors=["boom"], api_error_status=529, stop_reason="refusal", usage=counts, num_turns=7, duration_ms=50
    )
    expected = Finished(
        subtype="success", is_error=True, text="x", errors=("boom",), api_status=529, stop_reason="refusal", turns=7, duration=0.05,
        usage=Usage(input_tokens=1, output_tokens=2, cache_read_tokens=3, cache_creation_tokens=4),
    )  # fmt: skip
    assert decoded(said) == [expected]
    assert decoded(result("x", usage=dict.fromkeys(counts))) == [Finished(subtype="success", is_error=False, text="x")]


def test_a_full_window_is_told_from_the_output_limit_by_the_api_s_own_word() -> None:
    failure = assistant("s", text_block("API Error"), model="<synthetic>", error="max_output_tokens")
    for reason, code in (("model_context_window_exceeded", "model_context_window_exceeded"), ("max_tokens", "max_output_tokens")):
        events = decoded(started("A") + assistant("A", text_block("one")) + closed(reason) + failure)
        assert [event.code for event in events if isinstance(event, AgentFailed)] == [code]


# --- recordings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recording", CLAUDE, ids=str)
def test_a_recording_gives_the_same_events_however_it_is_cut(recording: Recording) -> None:
    data, whole = recording.stdout, together(events_of(recording.name))
    step = 1 if len(data) < 30_000 else 4093
    assert together(decoded(data, list(range(step, len(data), step)))) == whole
    assert together(decoded(data, list(range(65_536, len(data), 65_536)))) == whole


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SMALL), st.lists(st.integers(0, 30_000), max_size=40))
def test_random_cuts_change_nothing(recording: Recording, places: list[int]) -> None:
    data = recording.stdout
    assert together(decoded(data, sorted(place % len(data) for place in places))) == together(events_of(recording.name))


def piece(delta: object, **fields: object) -> bytes:
    return line(type="stream_event", event={"type": "content_block_delta", "index": 0, "delta": delta}, **fields)


# Pieces of text, and what looks like one and is none, or is one of another text.
LOOKALIKES = [
    started("A"), started("B", "toolu_1"), delta("a"), delta("b"), delta("c", index=1), delta("d", parent="toolu_1"), delta('"}},"\n\\'),
    piece({"type": "text_delta"}), piece({"type": "text_delta", "text": None}), piece({"type": "thinking_delta", "thinking": "t"}),
    piece({"type": "text_delta", "text": "e"}, parent_tool_use_id=5), piece({"type": "text_delta", "text": "f"}, api_message_id=5),
    piece({"type": "text_delta", "text": "g"}, api_message_id="A", uuid="u"), piece(None), delta("h")[:-4] + b"\n", b"\n",
    line(type="stream_event", event={"type": "content_block_delta", "index": "0", "delta": {"type": "text_delta", "text": "i"}}),
    line(type="stream_event", event={"type": "content_block_stop", "index": 0}),
    line(type="assistant", message={"id": "A", "content": [{"type": "text", "text": "a"}]}),
]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(LOOKALIKES) | st.just(delta("z")), max_size=30))
def test_pieces_of_text_read_together_say_what_each_says_alone(lines: list[bytes]) -> None:
    data = b"".join(lines)
    ends = list(accumulate(map(len, lines)))
    assert together(decoded(data)) == together(decoded(data, ends))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SMALL), st.integers(0, 30_000))
def test_a_copy_made_anywhere_reads_on_like_the_original(recording: Recording, place: int) -> None:
    data = recording.stdout
    place %= len(data)
    decoder = ClaudeDecoder()
    before = decoder.feed(data[:place])
    twin = decoder.copy()
    rest = decoder.feed(data[place:]) + decoder.close()
    assert twin.feed(data[place:]) + twin.close() == rest
    assert together(before + rest) == together(events_of(recording.name))


@pytest.mark.parametrize("recording", [*CLAUDE, *EXCHANGES, *OTHERS], ids=str)
def test_every_line_gives_an_event(recording: Recording) -> None:
    for data in recording.stdout.splitlines(keepends=True) if not recording.is_claude else recording.stdout.split(b"\n"):
        assert decoded(data + b"\n"), data[:200]


def test_no_line_of_claude_is_unknown() -> None:
    unknown = {
        (recording.name, event.what) for recording in CLAUDE for event in events_of(recording.name) if isinstance(event, Unrecognised)
    }
    assert unknown == {("17b-text-ok", "not JSON")}  # `--output-format text`


def test_the_recordings_show_every_kind_of_event() -> None:
    kinds = Counter(type(event) for recording in CLAUDE for event in events_of(recording.name))
    assert set(kinds) == {
        SessionOpened, MessageStarted, TextWritten, ThinkingWritten, ToolCalled, ToolReturned, PermissionAsked, AskWithdrawn, HostAsked, ApiRetried,
        RateLimited,
        UsageCounted, ModelSwitched, TaskChanged, HookRan, StatusChanged, AgentFailed, Finished, Noise, Unrecognised,
    }  # fmt: skip


def test_noise_is_what_we_know_to_say_nothing() -> None:
    noise = {event.what for recording in CLAUDE for event in events_of(recording.name) if isinstance(event, Noise)}
    assert noise == {
        "content_block_start", "content_block_stop", "message_stop", "signature_delta", "user", "control_response",
        "system/thinking_tokens", "system/compact_boundary", "system/notification", "system/informational",
        "system/permission_denied", "system/background_tasks_changed",
    }  # fmt: skip


def test_replaying_a_recording_gives_equal_events() -> None:
    for recording in CLAUDE[:20]:
        assert decoded(recording.stdout) == decoded(recording.stdout)


# --- what the events say ----------------------------------------------------------------------------------------------


def test_a_simple_run_told_in_full() -> None:
    opened, status, begun, counted, *_ = events_of("01-success-text")
    assert isinstance(opened, SessionOpened)
    assert (opened.model, opened.version, opened.permission_mode) == ("claude-opus-4-8[1m]", "2.1.197", "default")
    assert (opened.api_key_source, opened.cwd, opened.mcp_servers) == ("ANTHROPIC_API_KEY", "/home/user/project", ())
    assert "Bash" in opened.tools
    assert status == StatusChanged(status="requesting")
    assert begun == MessageStarted(message_id="msg_56d648f649cb4d89bbbb100e", model="claude-opus-4-8")
    assert counted == UsageCounted(message_id="msg_56d648f649cb4d89bbbb100e", input_tokens=10, output_tokens=1)
    texts = [event for event in events_of("01-success-text") if isinstance(event, TextWritten)]
    block = "msg_56d648f649cb4d89bbbb100e:0"
    assert texts == [
        TextWritten(block=block, text="Hello from the stub. " * 5, pieces=5),  # read together, told together
        TextWritten(block=block, text="Hello from the stub. " * 5, whole=True),
    ]
    finished = events_of("01-success-text")[-1]
    assert finished == Finished(
        subtype="success",
        is_error=False,
        text="Hello from the stub. " * 5,
        terminal_reason="completed",
        stop_reason="end_turn",
        usage=Usage(input_tokens=10, output_tokens=42),
        cost=0.0010999999999999998,
        turns=1,
        duration=0.222,
        session_id="827cf9e0-3062-47d3-a1d1-2e80bc95408e",
    )


def test_the_deltas_of_every_message_that_became_whole_are_its_text() -> None:
    for recording in CLAUDE:
        pieces: dict[str, str] = {}
        for event in events_of(recording.name):
            if isinstance(event, TextWritten | ThinkingWritten):
                if not event.whole:
                    pieces[event.block] = pieces.get(event.block, "") + event.text
                elif event.block in pieces:
                    assert pieces.pop(event.block) == event.text, recording


def test_pieces_of_input_are_the_input_of_the_call() -> None:
    calls = 0
    for recording in CLAUDE:
        pieces: dict[str, str] = {}
        for event in events_of(recording.name):
            if isinstance(event, ToolCalled):
                if not event.whole:
                    pieces[event.tool_id] = pieces.get(event.tool_id, "") + event.input
                elif pieces.get(event.tool_id) and "unknown-tool" not in recording.name:
                    told, streamed = json.loads(event.input), json.loads(pieces[event.tool_id])
                    # The CLI adds its defaults to what the model wrote.
                    assert streamed.items() <= told.items(), recording
                    calls += 1
    assert calls > 50


def test_a_block_has_the_index_that_it_has_in_its_message() -> None:
    texts = [event for event in events_of("02b-tools-bypass-sandbox") if isinstance(event, TextWritten | ThinkingWritten) and event.whole]
    assert [event.block.rpartition(":")[2] for event in texts] == ["0", "1", "0"]
    assert isinstance(texts[0], ThinkingWritten)


def test_after_a_cut_stream_the_text_belongs_to_the_second_message() -> None:
    events = events_of("04a-rst-midway-then-ok")
    begun = [event.message_id for event in events if isinstance(event, MessageStarted)]
    whole = [event for event in events if isinstance(event, TextWritten) and event.whole]
    assert len(begun) == 2
    assert whole == [TextWritten(block=f"{begun[1]}:0", text="second answer", whole=True)]


def test_subagents_are_told_apart_by_their_parent() -> None:
    call = next(event for event in events_of("14a-subagent") if isinstance(event, ToolCalled) and event.whole)
    assert call.name == "Task"
    inner = [event for event in events_of("14a-subagent") if getattr(event, "parent", None) == call.tool_id]
    assert [type(event) for event in inner] == [MessageStarted, ToolCalled, ToolReturned]


def test_interleaved_agents_keep_their_own_blocks() -> None:
    data = started("A") + started("S", "t1") + delta("a") + delta("s", parent="t1") + delta("b", index=1) + delta("t", parent="t1")
    written = [event for event in decoded(data) if isinstance(event, TextWritten)]
    assert [(event.block, event.parent) for event in written] == [("A:0", None), ("S:0", "t1"), ("A:1", None), ("S:0", "t1")]


def test_several_blocks_in_one_line_are_counted_on() -> None:
    data = assistant("A", {"type": "text", "text": "one"}, {"type": "thinking", "thinking": "two"}) + assistant(
        "A", {"type": "text", "text": "three"}
    )
    assert decoded(data) == [
        MessageStarted(message_id="A", model="m"),
        TextWritten(block="A:0", text="one", whole=True),
        ThinkingWritten(block="A:1", text="two", whole=True),
        TextWritten(block="A:2", text="three", whole=True),
    ]


def test_more_agents_than_can_be_kept_cost_no_memory_and_no_event() -> None:
    decoder = ClaudeDecoder()
    for number in range(PARENTS_LIMIT * 3):
        assert decoder.feed(started(f"m{number}", f"t{number}"))
    assert len(decoder._streams) == PARENTS_LIMIT
    assert decoder.feed(delta("late", parent="t0"))[-1] == TextWritten(block="?:0", text="late", parent="t0")


def test_an_error_of_the_api_is_told_by_code_and_its_text_is_not_the_models() -> None:
    events = events_of("03e3-400-credit")
    (text,) = [event for event in events if isinstance(event, TextWritten)]
    assert text.synthetic
    assert next(event for event in events if isinstance(event, AgentFailed)).code == "billing_error"


def test_files_are_those_that_tools_wrote() -> None:
    returned = [event for event in events_of("02b-tools-bypass-sandbox") if isinstance(event, ToolReturned)]
    assert [event.path for event in returned] == ["/home/user/project/hello.txt", None, None, None, "/home/user/project/hello.txt"]
    assert [event.is_error for event in returned] == [False, True, False, False, False]
    denied = [event.path for event in events_of("02f-default-denied") if isinstance(event, ToolReturned)]
    assert denied == [None] * 5


def test_an_image_is_told_by_its_size() -> None:
    (returned,) = [event for event in events_of("08c-read-image") if isinstance(event, ToolReturned)]
    assert returned.text.startswith("[image, ")
    assert returned.text.endswith(" MB]")


def test_denials_name_tool_and_input() -> None:
    finished = events_of("19a-v329-permission-denied-event")[-1]
    assert isinstance(finished, Finished)
    assert finished.denials == (
        Denial(name="Bash", tool_id="toolu_1ac41e5fe36f4f0f921574", input='{"command":"touch zz.txt","description":"x"}'),
    )


def test_structured_output_is_kept_as_json_and_absent_is_none() -> None:
    good, bad = events_of("13b-json-schema-ok")[-1], events_of("13c-json-schema-invalid-then-none")[-1]
    assert isinstance(good, Finished)
    assert good.structured is not None
    assert isinstance(json.loads(bytes(good.structured)), dict)
    assert isinstance(bad, Finished)
    assert bad.structured is None
    (null,) = decoded(line(type="result", subtype="success", structured_output=None))
    assert isinstance(null, Finished)
    assert null.structured is None


def test_limits_retries_tasks_hooks_and_permissions_are_events() -> None:
    (limited,) = [event for event in events_of("14e-ratelimit-rejected-subscriber") if isinstance(event, RateLimited)]
    assert (limited.status, limited.window, limited.resets_at) == ("rejected", "five_hour", 1795224998)
    retries = [event for event in events_of("03m-conn-refused") if isinstance(event, ApiRetried)]
    assert [retry.attempt for retry in retries] == list(range(1, 11))
    assert {(retry.max_attempts, retry.status) for retry in retries} == {(10, None)}
    tasks = [event.status for event in events_of("13d-bash-background") if isinstance(event, TaskChanged)]
    assert tasks == ["started", "completed", "completed"]
    hooks = [event for event in events_of("12a-hooks-settings") if isinstance(event, HookRan)]
    assert {hook.status for hook in hooks} == {"started", "success"}
    assert "hook says no" in "".join(hook.text for hook in hooks)
    (switched,) = [event for event in events_of("04l-529-fallback-model") if isinstance(event, ModelSwitched)]
    assert switched == ModelSwitched(model="claude-sonnet-4-5", reason="overloaded")
    asked = [event for event in events_of("10a-can-use-tool") if isinstance(event, PermissionAsked)]
    assert {ask.name for ask in asked} == {"Bash", "Write"}
    assert all(json.loads(ask.input) for ask in asked)
    states = [event.status for event in events_of("13g-bash-background-session-state") if isinstance(event, StatusChanged)]
    assert states[-1] == "idle"


# --- what we do not know ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (line(type="brand_new", more=1), "brand_new"),
        (line(type="system", subtype="brand_new"), "system/brand_new"),
        (line(type="system"), "system/"),
        (line(type=7), "7"),
        (line(type=["list"]), "['list']"),
        (line(no_type=True), "?"),
        (line(type="stream_event", event={"type": "brand_new"}), "stream_event/brand_new"),
        (line(type="stream_event", event={"type": "content_block_delta", "delta": {"type": "new_delta"}}), "stream_event/content_block_delta/new_delta"),
        (line(type="stream_event"), "stream_event"),
        (line(type="stream_event", event={"type": "content_block_start", "content_block": {"type": "new_block"}}), "content_block_start/new_block"),
        (b"plain text\n", "not JSON"),
        (b'[{"type":"system"}]\n', "not JSON"),
        (b'{"type":"assistant"\n', "not JSON"),
        (b"[" * 100_000 + b"\n", "not JSON"),
        (b'{"type":"\xff\xfe"}\n', "\ufffd\ufffd"),
        (b'{"type":"\\ud800"}\n', "\ufffd"),
        (b"\xff\xfe\x00\n", "not JSON"),
    ],
)  # fmt: skip
def test_an_unknown_line_is_kept_as_it_came(data: bytes, what: str) -> None:
    (event,) = decoded(data)
    assert isinstance(event, Unrecognised)
    assert event.what == what
    assert event.raw == (
        data[:RAW_LIMIT].decode("utf-8", "replace").rstrip("\n") if len(data) <= RAW_LIMIT else f"{data[:RAW_LIMIT].decode()}…"
    )
    event.raw.encode()


def test_a_number_too_long_for_python_is_skipped_where_nobody_reads_it() -> None:
    long = b"9" * 5000
    assert decoded(b'{"type":"system","subtype":"status","n":' + long + b"}\n") == [StatusChanged(status="running")]
    (event,) = decoded(b'{"type":"system","subtype":"api_retry","attempt":' + long + b"}\n")
    assert isinstance(event, Unrecognised)


def test_blank_lines_are_noise() -> None:
    assert decoded(b"\n  \n\r\n") == [Noise(what="blank")] * 3


def test_an_unfinished_last_line_is_read_at_the_end() -> None:
    assert decoded(line(type="system", subtype="status", status="requesting").rstrip()) == [StatusChanged(status="requesting")]
    (event,) = decoded(b'{"type":"result","subty')
    assert isinstance(event, Unrecognised)


def test_unknown_fields_anywhere_do_no_harm() -> None:
    def more(value: Any) -> Any:
        if isinstance(value, dict):
            return {"zz_new": {"a": [1]}, **{key: more(item) for key, item in value.items()}, "zz_other": None}
        return [more(item) for item in value] if isinstance(value, list) else value

    for recording in SMALL:
        if recording.name == "17b-text-ok":
            continue
        lines = [json.loads(data) for data in recording.stdout.split(b"\n") if data]
        widened = decoded(b"".join(line(**more(fields)) for fields in lines))
        for event, known in zip(widened, events_of(recording.name), strict=True):
            assert type(event) is type(known)
            if isinstance(event, Finished | TextWritten | ThinkingWritten | ApiRetried | MessageStarted) and not getattr(
                event, "denials", ()
            ):
                structured = isinstance(event, Finished) and event.structured is not None
                assert structured or event == known


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_turns", "three"), ("usage", []), ("api_error_status", {"code": 1}), ("errors", "x"), ("permission_denials", {"a": 1}), ("session_id", 4),
     ("total_cost_usd", "free"), ("stop_reason", ["x"]), ("duration_ms", None)],
)  # fmt: skip
def test_a_field_of_another_type_costs_that_field_and_not_the_result(field: str, value: Any) -> None:
    fields = {"type": "result", "subtype": "success", "is_error": True, "result": "text", "terminal_reason": "api_error", field: value}
    (event,) = decoded(line(**fields))
    assert isinstance(event, Finished)
    assert (event.is_error, event.text, event.terminal_reason) == (True, "text", "api_error")


def test_a_block_of_an_unknown_kind_leaves_the_others_and_their_numbers() -> None:
    events = decoded(assistant("A", {"type": "text", "text": "a"}, {"type": "hologram", "x": 1}, {"type": "text", "text": "b"}))
    assert [type(event) for event in events] == [MessageStarted, TextWritten, Unrecognised, TextWritten]
    assert events[2].what == "assistant/hologram"  # pyright: ignore[reportAttributeAccessIssue]  # the line above says what it is
    assert events[3] == TextWritten(block="A:2", text="b", whole=True)


def test_an_unknown_part_of_a_tool_result_is_named() -> None:
    content = [{"type": "text", "text": "a"}, {"type": "hologram"}, {"type": "image", "source": {"type": "base64", "data": "A" * 400}}]
    (event,) = decoded(line(type="user", message={"content": [{"type": "tool_result", "tool_use_id": "t", "content": content}]}))
    assert event == ToolReturned(tool_id="t", text="a\n[hologram]\n[image, 0.3 kB]")


def test_broken_utf8_and_lone_surrogates_become_text_that_can_be_written_again() -> None:
    data = b'{"type":"assistant","message":{"id":"A","content":[{"type":"text","text":"a\xffb\\ud800c\\ud83d\\ude00"}]}}\n'
    event = decoded(data)[-1]
    assert event == TextWritten(block="A:0", text="a\ufffdb\ufffdc\U0001f600", whole=True)


def test_tools_that_only_name_a_file_did_not_write_it() -> None:
    def path_of(result: Any) -> str | None:
        (event,) = decoded(
            line(type="user", tool_use_result=result, message={"content": [{"type": "tool_result", "tool_use_id": "t", "content": "x"}]})
        )
        assert isinstance(event, ToolReturned)
        return event.path

    assert path_of({"type": "update", "filePath": "/a"}) == "/a"
    assert path_of({"filePath": "/a", "structuredPatch": []}) == "/a"
    assert path_of({"filePath": "/a", "operation": "hover"}) is None
    assert path_of({"type": "text", "file": {"filePath": "/a"}}) is None
    assert path_of({"type": "create", "filePath": 7}) is None
    assert path_of("Error: no") is None


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SMALL), st.data())
def test_a_damaged_recording_never_raises_and_loses_no_line(recording: Recording, data: st.DataObject) -> None:
    damaged = bytearray(recording.stdout)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    for piece in bytes(damaged).split(b"\n"):
        assert decoded(piece + b"\n")
    assert decoded(bytes(damaged))


@settings(max_examples=200, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(["type", "subtype", "event", "delta", "message", "content", "id", "index", "request", "usage", "content_block", "text", "error"]),
    inner | st.sampled_from(["stream_event", "assistant", "user", "result", "system", "text", "tool_use", "content_block_delta", "init", "task_started"]),
    max_size=5,
), max_leaves=20))  # fmt: skip
def test_any_json_at_all_gives_an_event(value: Any) -> None:
    assert decoded(json.dumps(value).encode() + b"\n")


# --- size -------------------------------------------------------------------------------------------------------------


def test_a_line_of_six_megabytes_is_one_event() -> None:
    content = "é\n" * 2_000_000
    call = {"type": "tool_use", "id": "t", "name": "Write", "input": {"file_path": "/x", "content": content}}
    data = assistant("A", call) + line(
        type="user",
        tool_use_result={"type": "create", "filePath": "/x", "content": content},
        message={"content": [{"type": "tool_result", "tool_use_id": "t", "content": "ok"}]},
    )
    assert len(data) > 2 * 5_800_000
    _, called, returned = decoded(data, list(range(65_536, len(data), 65_536)))
    assert isinstance(called, ToolCalled)
    assert json.loads(called.input)["content"] == content
    assert returned == ToolReturned(tool_id="t", text="ok", path="/x")
