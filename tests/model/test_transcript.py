from __future__ import annotations

import itertools
import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_executor.model.ansi import Cleaner, clean, has_control
from cc_executor.model.event import (
    ApiRetried,
    Event,
    Exited,
    Finished,
    LeftBehind,
    Leftover,
    MessageStarted,
    Paused,
    RateLimited,
    Resumed,
    StderrWritten,
    StopRequested,
    TextWritten,
    ThinkingWritten,
    ToolCalled,
    ToolReturned,
)
from cc_executor.model.item import PART_CHARS, PART_LINES, Item, ItemState, Kind, Level, cut, excerpt
from cc_executor.model.pager import CHECKPOINT_LINES, CHECKPOINTS, Checkpoints, earlier
from cc_executor.model.transcript import Bounds, Transcript


def text(value: str, *, block: str = "m:0", whole: bool = False, parent: str | None = None) -> TextWritten:
    return TextWritten(block=block, text=value, whole=whole, parent=parent)


def folded(events: Iterable[Event], bounds: Bounds | None = None) -> Transcript:
    transcript = Transcript(bounds)
    transcript.feed(events)
    return transcript


def pieces(value: str, cuts: list[int]) -> list[str]:
    points = sorted({0, len(value), *(cut % (len(value) + 1) for cut in cuts)})
    return [value[a:b] for a, b in itertools.pairwise(points)]


terminal = st.lists(
    st.sampled_from(
        ["\x1b", "[", "]", "0;1m", "31m", "\x07", "\\", "\r", "\n", "a", "déjà", "\x9b", "\x00", "(B", "P", "K", "\u2028", "x" * 90, "\r\n"]
    )
    | st.text(max_size=5),
    max_size=60,
).map("".join)
markdown = st.lists(
    st.sampled_from(
        ["```python\n", "```\n", "~~~~\n", "\n", "# T\n", "a line of words\n", "x" * 700, "- item\n", "\n\n", "    ````\n", "é\n"]
    ),
    max_size=400,
).map("".join)


# --- terminal text ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://evil.example/\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;aGk=\x07", ""),
        ("10%\r50%\r100%\ndone", "100%\ndone"),
        ("a\r\nb", "a\nb"),
        ("\x1b(Bx\x1b7y\x1bc", "xy"),
        ("bell\x07 nul\x00 del\x7f c1\x85", "bell nul del c1"),
        ("lone \x1b\nescape", "lone \nescape"),
        ("tab\tkept", "tab\tkept"),
        ("\x1b]" + "x" * 5000 + "\x07", "]" + "x" * 5000),
    ],
)
def test_terminal_control_is_removed(raw: str, plain: str) -> None:
    assert clean(raw) == plain


@given(terminal, st.lists(st.integers(0, 10_000), max_size=12))
def test_terminal_control_is_removed_in_any_chunking(raw: str, cuts: list[int]) -> None:
    whole = Cleaner().feed(raw)
    cleaner = Cleaner()
    assert "".join(cleaner.feed(piece) for piece in pieces(raw, cuts)) == whole
    assert not any(mark in whole for mark in "\x1b\x07\x9b\x00")


@pytest.mark.parametrize("beside", ["", "é", "😀"])
def test_what_has_control_is_what_is_not_left_as_it_is(beside: str) -> None:
    for code in (*range(0x110), *range(0xD7F0, 0xE010)):
        value = f"{beside}{chr(code)}{beside}"
        held = Cleaner()
        is_changed = held.feed(value) != value or held.feed("x") != "x" or chr(code) == "\r"
        assert has_control(value) == is_changed, hex(code)


# --- parts ------------------------------------------------------------------------------------------------------------


@given(markdown, st.booleans())
def test_a_cut_depends_on_nothing_behind_the_limit(value: str, as_markdown: bool) -> None:
    where = cut(value, markdown=as_markdown)
    if where is None:
        assert value.count("\n") <= PART_LINES
        assert len(value) <= PART_CHARS
        return
    assert 0 < where.at <= PART_CHARS
    assert value[: where.at].count("\n") <= PART_LINES
    assert cut(value + "more\n" * 50, markdown=as_markdown) == where


def test_a_part_that_is_cut_in_a_code_fence_says_which() -> None:
    value = "intro\n\n```python\n" + "x = 1\n" * 300 + "```\nend\n"
    items = folded([text(value, whole=True)]).items
    assert "".join(item.text for item in items) == value
    assert [item.fence for item in items] == ["", "```python\n"]
    assert [item.continues for item in items] == [False, True]


def test_markdown_is_cut_between_paragraphs() -> None:
    value = "a paragraph\nof two lines\n\n" * 100
    items = folded([text(value, whole=True)]).items
    assert all(item.text.endswith("\n\n") for item in items)
    assert "".join(item.text for item in items) == value


@pytest.mark.parametrize("size", [1, 199, 200, 201, 1000])
def test_an_excerpt_has_both_ends_and_counts_the_rest(size: int) -> None:
    shown = excerpt("\n".join(f"line {n}" for n in range(size)))
    assert shown.text.startswith("line 0")
    assert shown.text.endswith(f"line {size - 1}")
    assert shown.left_out == max(0, size - 200)
    assert len(shown.text) <= PART_CHARS + 100


@given(st.lists(st.text(st.characters(exclude_characters="\n"), max_size=30), max_size=60), st.integers(2, 20), st.integers(10, 200))
def test_an_excerpt_counts_every_line(rows: list[str], lines: int, chars: int) -> None:
    value = "\n".join(rows).rstrip("\n")
    shown = excerpt(value, lines=lines, chars=chars)
    assert shown.left_out >= 0
    if shown.left_out and "\n" in value:
        assert shown.text.count("\n") + shown.left_out == value.count("\n") + 1
    elif not shown.left_out:
        assert shown.text == value


# --- the fold ---------------------------------------------------------------------------------------------------------


@given(markdown, st.lists(st.integers(0, 100_000), max_size=30))
def test_a_text_gives_the_same_items_in_any_pieces(value: str, cuts: list[int]) -> None:
    whole = folded([text(value, whole=True)])
    streamed = folded([text(piece) for piece in pieces(value, cuts)])
    assert [(i.number, i.text, i.fence) for i in streamed.items] == [(i.number, i.text, i.fence) for i in whole.items]
    streamed.feed([text(value, whole=True)])
    assert streamed.items == whole.items
    assert "".join(item.text for item in whole.items) == value


@given(terminal, st.lists(st.integers(0, 10_000), max_size=12), st.sampled_from(["out", "err"]))
def test_raw_output_gives_the_same_items_in_any_pieces(value: str, cuts: list[int], stream: str) -> None:
    value = value * 20

    def event(piece: str) -> Event:
        return StderrWritten(text=piece) if stream == "err" else text(piece, block="stdout")

    at_once = folded([event(value)])
    assert folded(event(piece) for piece in pieces(value, cuts)).items == at_once.items
    assert all(item.kind is (Kind.STDERR if stream == "err" else Kind.OUTPUT) for item in at_once.items)


@pytest.mark.parametrize("block", ["stdout", "m:0"])
def test_terminal_control_is_removed_however_it_is_cut(block: str) -> None:
    raw = "plain\x1b[1;31mred\x1b]0;title\x07 end\n"
    assert [item.text for item in folded(text(piece, block=block) for piece in raw).items] == ["plainred end\n"]
    assert [item.text for item in folded([text(raw, block=block)]).items] == ["plainred end\n"]
    assert [item.text for item in folded(StderrWritten(text=piece) for piece in raw).items] == ["plainred end\n"]


def test_an_authoritative_text_replaces_its_pieces_where_they_stood() -> None:
    transcript = folded([text("Hel"), text("lo wrold"), StderrWritten(text="warning\n"), text("Hello world", whole=True)])
    assert [(item.number, item.kind, item.text) for item in transcript.items] == [
        (0, Kind.TEXT, "Hello world"),
        (1, Kind.STDERR, "warning\n"),
    ]


def test_a_new_message_withdraws_what_never_became_whole() -> None:
    transcript = folded(
        [MessageStarted(message_id="a"), text("half of an ans", block="a:0"), ToolCalled(tool_id="t", name="Bash", whole=False)]
    )
    version = transcript.version
    transcript.feed([MessageStarted(message_id="b"), text("An answer", block="b:0")])
    assert [item.text for item in transcript.items] == ["An answer"]
    assert transcript.changes_since(version).withdrawn == (0, 1)


def test_a_subagents_message_does_not_withdraw_the_main_agents_text() -> None:
    transcript = folded([text("main", block="a:0"), MessageStarted(message_id="s", parent="tool"), text("sub", block="s:0", parent="tool")])
    assert [item.text for item in transcript.items] == ["main", "sub"]


def test_a_whole_text_is_not_withdrawn() -> None:
    transcript = folded([text("done", whole=True), MessageStarted(message_id="b")])
    assert [(item.text, item.state) for item in transcript.items] == [("done", ItemState.DONE)]


def test_a_tool_goes_from_running_to_its_result() -> None:
    transcript = folded([ToolCalled(tool_id="t", name="Bash", whole=False)])
    assert transcript.items[0] == Item(number=0, kind=Kind.TOOL, state=ItemState.OPEN, title="Bash")
    call = json.dumps({"command": "echo hi\n\techo there", "description": "Say hi"})
    transcript.feed([ToolCalled(tool_id="t", name="Bash", input=call)])
    assert transcript.items[0].summary == "echo hi echo there"
    assert transcript.items[0].input == "echo hi\n\techo there"
    transcript.feed([ToolReturned(tool_id="t", text="\x1b[32mhi\x1b[0m\nthere", is_error=False)])
    assert (transcript.items[0].text, transcript.items[0].state) == ("hi\nthere", ItemState.DONE)


@pytest.mark.parametrize(
    ("call", "summary", "shown"),
    [
        ({"file_path": "/a.py", "old_string": "x\ny", "new_string": "z"}, "/a.py", "file_path: /a.py\n- x\n- y\n+ z"),
        ({"pattern": "def .*", "path": "src"}, "def .*", "pattern: def .*\npath: src"),
        ({"todos": [{"content": "a", "status": "completed"}, {"content": "b"}]}, "2 items", "☑ a\n☐ b"),
        ({"n": 3, "content": "first\nsecond"}, "first second", "n: 3\ncontent:\nfirst\nsecond"),
        ({}, "", ""),
    ],
)
def test_a_call_is_shown_in_words(call: dict[str, object], summary: str, shown: str) -> None:
    item = folded([ToolCalled(tool_id="t", name="X", input=json.dumps(call))]).items[0]
    assert (item.summary, item.input) == (summary, shown)


@pytest.mark.parametrize("source", ["", "[1, 2]", '{"a": ', "null", '"' + "[" * 10_000, "[" * 100_000])
def test_input_that_is_no_object_is_shown_as_it_came(source: str) -> None:
    item = folded([ToolCalled(tool_id="t", name="X", input=source)]).items[0]
    assert item.input[:100] == source[:100]


def test_a_result_without_a_call_is_shown() -> None:
    item = folded([ToolReturned(tool_id="?", text="boom", is_error=True)]).items[0]
    assert (item.kind, item.state, item.text) == (Kind.TOOL, ItemState.FAILED, "boom")


def test_a_huge_result_is_one_bounded_item() -> None:
    item = folded([ToolCalled(tool_id="t", name="Bash", input="{}"), ToolReturned(tool_id="t", text="line\n" * 1_000_000)]).items[0]
    assert len(item.text) <= PART_CHARS + 100
    assert item.left_out == 1_000_000 - 200


def test_the_end_cuts_what_is_open() -> None:
    transcript = folded([text("half"), ToolCalled(tool_id="t", name="Bash", input="{}"), Exited(signal="SIGTERM")])
    assert [item.state for item in transcript.items] == [ItemState.CUT, ItemState.CUT, ItemState.DONE]
    transcript.feed([ToolReturned(tool_id="t", text="late")])
    assert transcript.items[1].state is ItemState.DONE


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (ApiRetried(attempt=2, max_attempts=10, delay=4.2, status=429), "The API answered 429 Too Many Requests; attempt 2 of 10 in 4.2 s"),
        (
            ApiRetried(attempt=1, max_attempts=10, delay=61, error="ECONNREFUSED"),
            "The API did not answer (ECONNREFUSED); attempt 1 of 10 in 1 min 1 s",
        ),
        (ApiRetried(attempt=1, max_attempts=10, delay=0.5, status=599), "The API answered 599; attempt 1 of 10 in 0.5 s"),
        (
            RateLimited(status="rejected", resets_at=1.8e9, window="five_hour"),
            "The subscription's limit is reached (five hour); it opens again at 2027-01-15 08:00 UTC",
        ),
        (
            RateLimited(status="allowed_warning", resets_at=1e300, utilization=0.9),
            "The subscription's limit is near, 90% used; it opens again at an unknown time",
        ),
        (Paused(by="cell", processes=5), "Paused by cell; 5 processes stand still"),
        (Resumed(paused=12), "Resumed after 12 s"),
        (StopRequested(reason="cancel", by="cell"), "Stop requested by cell: cancelled"),
        (
            LeftBehind(processes=(Leftover(pid=7, command="sleep 1000"),)),
            "The agent left processes behind; they were ended: sleep 1000 (pid 7)",
        ),
        (Exited(code=3), "Exit code 3"),
    ],
)
def test_what_a_reader_should_know_is_a_notice(event: Event, words: str) -> None:
    assert [item.text for item in folded([event]).items] == [words]


@pytest.mark.parametrize(
    "event", [Exited(code=0), RateLimited(status="allowed"), Finished(subtype="success", is_error=False), MessageStarted(message_id="x")]
)
def test_what_goes_without_saying_is_no_notice(event: Event) -> None:
    assert folded([event]).items == ()


def test_retries_in_a_row_are_one_notice() -> None:
    retries = [ApiRetried(attempt=n, max_attempts=10, delay=1, status=529) for n in range(1, 5)]
    transcript = folded([*retries, text("ok", whole=True), *retries[:1]])
    assert [(item.number, item.text.split(";")[1]) for item in transcript.items if item.kind is Kind.NOTICE] == [
        (0, " attempt 4 of 10 in 1.0 s"),
        (2, " attempt 1 of 10 in 1.0 s"),
    ]


def test_stderr_goes_on_below_what_came_between() -> None:
    transcript = folded([StderrWritten(text="a\n"), StderrWritten(text="b\n"), text("t", whole=True), StderrWritten(text="c\n")])
    assert [(item.kind, item.text) for item in transcript.items] == [(Kind.STDERR, "a\nb\n"), (Kind.TEXT, "t"), (Kind.STDERR, "c\n")]


# --- changes ----------------------------------------------------------------------------------------------------------


def test_changes_are_what_a_reader_lacks() -> None:
    transcript = folded([text("one", whole=True), text("tw", block="m:1")])
    seen = transcript.changes_since(0)
    assert [item.text for item in seen.items] == ["one", "tw"]
    transcript.feed([text("o", block="m:1")])
    later = transcript.changes_since(seen.version)
    assert (later.reset, [item.text for item in later.items]) == (False, ["two"])
    assert transcript.changes_since(later.version).items == ()


def test_who_is_too_far_behind_gets_everything() -> None:
    transcript = Transcript(Bounds(items=10))
    for number in range(5000):
        transcript.feed([text(str(number), block=f"m:{number}", whole=True)])
    changes = transcript.changes_since(1)
    assert changes.reset
    assert [item.text for item in changes.items] == [str(number) for number in range(4990, 5000)]


def reader_following(transcript: Transcript, batches: Iterable[list[Event]]) -> dict[int, Item]:
    """What a view holds that follows by changes alone."""
    held: dict[int, Item] = {}
    version = 0
    for batch in batches:
        transcript.feed(batch)
        changes = transcript.changes_since(version)
        if changes.reset:
            held.clear()
        for number in (*changes.withdrawn, *changes.elided):
            held.pop(number, None)
        held.update({item.number: item for item in changes.items})
        version = changes.version
    return held


# --- a random run -----------------------------------------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from(["text", "piece", "message", "think", "call", "return", "stderr", "out", "retry", "pause", "note"]),
        st.integers(0, 700),
    ),
    max_size=60,
)


def run_of(script: list[tuple[str, int]]) -> list[Event]:
    events: list[Event] = []
    message, block, tool = 0, 0, 0
    for step, size in script:
        body = "".join(f"{step} {len(events)} line {n}\n" for n in range(size))
        match step:
            case "text":
                events.append(text(body, block=f"{message}:{block}", whole=True))
                block += 1
            case "piece":
                events.append(text(body, block=f"{message}:{block}"))
            case "message":
                message, block = message + 1, 0
                events.append(MessageStarted(message_id=str(message)))
            case "think":
                events.append(ThinkingWritten(block=f"{message}:{block}", text=body, whole=bool(size % 2)))
                block += 1
            case "call":
                tool += 1
                events.append(
                    ToolCalled(tool_id=f"t{tool - size % 3}", name="Bash", input=json.dumps({"command": body}), whole=size % 4 > 0)
                )
            case "return":
                events.append(ToolReturned(tool_id=f"t{tool - size % 2}", text=body))
            case "stderr":
                events.append(StderrWritten(text=body))
            case "out":
                events.append(text(body[:-1], block="stdout"))
            case "retry":
                events.append(ApiRetried(attempt=size, max_attempts=10, delay=1))
            case _:
                events.append(Paused(by="test", processes=size))
    return events


@given(steps, st.integers(1, 6))
def test_a_page_is_bounded_and_a_follower_holds_the_same(script: list[tuple[str, int]], batch: int) -> None:
    bounds = Bounds(lines=1500, items=20, chars=60_000)
    transcript = Transcript(bounds)
    events = run_of(script)
    held = reader_following(transcript, (events[n : n + batch] for n in range(0, len(events), batch)))
    assert tuple(held[number] for number in sorted(held)) == transcript.items
    numbers = [item.number for item in transcript.items]
    assert numbers == sorted(numbers)
    assert transcript.held_lines == sum(item.lines for item in transcript.items)
    still_open = [item for item in transcript.items if item.state is ItemState.OPEN]
    assert len(transcript) <= bounds.items + len(still_open)
    assert transcript.held_lines <= bounds.lines + sum(item.lines for item in still_open) + PART_LINES * 3
    assert transcript.snapshot().items == transcript.items


@given(steps, st.integers(20, 900), st.integers(1, 7), st.data())
def test_pages_give_back_exactly_what_was_elided(script: list[tuple[str, int]], page_lines: int, every: int, data: st.DataObject) -> None:
    events = run_of(script)
    everything = Transcript(Bounds(lines=10**9, items=10**9, chars=10**12))
    live = Transcript(Bounds(lines=600, items=15, chars=40_000))
    notes = data.draw(st.sets(st.integers(0, max(len(events), 1)), max_size=3))
    checkpoints: Checkpoints[int] = Checkpoints(0, live)
    for index, event in enumerate(events):
        if index in notes:
            live.note(f"note {index}")
            everything.note(f"note {index}")
        if index and index % every == 0:
            checkpoints.add(index, live)
        live.feed([event])
        everything.feed([event])
    shown = {item.number: item for item in live.items}
    before, pages = live.floor, 0
    while before > 0:
        page = earlier(checkpoints, lambda position: events[position:], before=before, lines=page_lines)
        assert page.first < before
        assert all(page.first <= item.number < before for item in page.items)
        assert sum(item.lines for item in page.items[:-1] if item.state is not ItemState.OPEN) <= page_lines
        paged = {item.number: item for item in page.items}
        shown = paged | shown  # what is still live is fresher
        before = page.first
        pages += 1
        assert pages < 10_000
    assert tuple(shown[number] for number in sorted(shown)) == everything.items


def test_from_every_point_of_a_run_the_same_items_are_made_again() -> None:
    lines = "".join(f"line {n}\n" for n in range(2 * PART_LINES))
    events: list[Event] = [
        MessageStarted(message_id="m"),
        text("Hello \x1b[1;3"),
        ToolCalled(tool_id="t1", name="Bash", input='{"command": "make"}', whole=True),
        StderrWritten(text="one \x1b[3"),
        StderrWritten(text="1mtwo\n"),
        text("1mworld"),
        ToolCalled(tool_id="t2", name="Read", whole=False),
        ToolReturned(tool_id="t1", text="made"),
        text(lines, block="m:1"),
        text(lines, block="m:1"),
        text("Hello world", whole=True),
        ApiRetried(attempt=1, max_attempts=10, delay=1),
        ApiRetried(attempt=2, max_attempts=10, delay=1),
        text(2 * lines + "end", block="m:1", whole=True),
        ToolCalled(tool_id="t2", name="Read", input='{"file_path": "a"}', whole=True),
        ThinkingWritten(block="m:2", text="Hm", whole=False),
        MessageStarted(message_id="n"),
        ToolReturned(tool_id="t2", text="read"),
        text("Done", block="n:0", whole=True),
        Exited(code=0),
    ]
    everything = folded(events).items
    live = Transcript()
    for place, event in enumerate(events):
        again = live.copy()
        again.feed(events[place:])
        begin = live.next_number
        assert [item for item in again.items if item.number >= begin] == [item for item in everything if item.number >= begin], place
        live.feed([event])
    assert live.items == everything, "no copy has changed what it was made of"


def test_a_page_shows_a_call_as_it_ended_however_late() -> None:
    call: list[Event] = [ToolCalled(tool_id="t", name="Bash", whole=True), *(text(str(n), block=f"m:{n}", whole=True) for n in range(20))]
    events = [*call, ToolReturned(tool_id="t", text="made"), *(text(str(n), block=f"n:{n}", whole=True) for n in range(20))]
    live = folded(events, Bounds(items=5))
    page = earlier(Checkpoints(0, live), lambda position: events[position:], before=3)
    assert [(item.title or item.text, item.state) for item in page.items] == [(name, ItemState.DONE) for name in ("Bash", "0", "1")]


def test_a_page_begins_where_an_unfinished_text_is_only_partly_held() -> None:
    events = run_of([("piece", 201), ("return", 3), ("stderr", 396), ("out", 1), ("text", 198), ("text", 600)])
    live = Transcript(Bounds(lines=600))
    checkpoints: Checkpoints[int] = Checkpoints(0, live)
    for index, event in enumerate(events):
        checkpoints.add(index, live)
        live.feed([event])
    page = earlier(checkpoints, lambda position: events[position:], before=live.floor, lines=198)
    assert [item.number for item in page.items] == [4, 5]


def test_a_flood_is_held_in_bounds_and_paged_in_full() -> None:
    lines = [f"line {n:06d}\n" for n in range(100_000)]
    batches = ["".join(lines[n : n + 37]) for n in range(0, len(lines), 37)]
    transcript = Transcript()
    checkpoints: Checkpoints[int] = Checkpoints(0, transcript)
    for index, batch in enumerate(batches):
        if checkpoints.is_due(transcript):
            checkpoints.add(index, transcript)
        transcript.feed([text(batch, block="stdout")])
        assert transcript.held_lines <= Bounds().lines + PART_LINES
    assert 1 < len(checkpoints) <= CHECKPOINTS
    assert transcript.elided_lines + transcript.held_lines == 100_000
    read_events = 0

    def read(position: int) -> Iterable[Event]:
        nonlocal read_events
        for batch in batches[position:]:
            read_events += 1
            yield text(batch, block="stdout")

    first_page = earlier(checkpoints, read, before=transcript.floor)
    assert read_events * 37 <= 4 * CHECKPOINT_LINES  # one or two stretches, not the whole journal
    got = "".join(item.text for item in (*first_page.items, *transcript.items))
    before = first_page.first
    while before:
        page = earlier(checkpoints, read, before=before)
        got = "".join(item.text for item in page.items) + got
        before = page.first
    assert got == "".join(lines)


def test_checkpoints_are_bounded_however_long_the_run() -> None:
    transcript = Transcript()
    checkpoints: Checkpoints[int] = Checkpoints(0, transcript)
    for index in range(2000):
        if checkpoints.is_due(transcript):
            checkpoints.add(index, transcript)
        transcript.feed([text("line\n" * 1000, block="stdout")])
    assert len(checkpoints) <= CHECKPOINTS
    assert len(checkpoints.before(transcript.floor)) > 10


def test_a_note_is_a_notice_that_keeps_its_place_in_older_pages() -> None:
    live = Transcript(Bounds(items=4))
    live.note("The workspace is not trusted", level=Level.WARN)
    checkpoints: Checkpoints[int] = Checkpoints(0, live)
    events: list[Event] = [text(str(n), block=f"m:{n}", whole=True) for n in range(10)]
    live.feed(events)
    page = earlier(checkpoints, lambda position: events[position:], before=live.floor)
    assert page.items[0] == Item(number=0, kind=Kind.NOTICE, title="note", text="The workspace is not trusted", level=Level.WARN)
    assert page.first == 0
