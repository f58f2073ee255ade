from __future__ import annotations

import json
from itertools import pairwise
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_executor.agents.claude.decode import ClaudeDecoder
from cc_executor.model import event as events
from cc_executor.model import fold
from cc_executor.model.ask import ASKED_LIMIT, OPEN_LIMIT
from cc_executor.model.block import BLOCK_LIMIT, TOOL_TEXT_LIMIT, Block, BlockKind
from cc_executor.model.clipped import Clipped
from cc_executor.model.event import (
    AgentFailed,
    Answered,
    ApiRetried,
    AskWithdrawn,
    Degraded,
    Denial,
    Event,
    Exited,
    Finished,
    Frozen,
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
from cc_executor.model.fold import advance, advance_all
from cc_executor.model.joined import joined, pieces_of
from cc_executor.model.phase import Phase
from cc_executor.model.state import RunState
from support.recordings import CLAUDE, Recording, events_of


def folded(*happened: Event) -> RunState:
    state = RunState()
    for event in happened:
        state = advance(state, event)
    return state


def text(block: str, written: str, **more: Any) -> TextWritten:
    return TextWritten(block=block, text=written, **more)


def call(tool_id: str, name: str = "Bash", source: str = "{}", **more: Any) -> ToolCalled:
    return ToolCalled(tool_id=tool_id, name=name, input=source, **more)


# --- clipped text -----------------------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=12), max_size=12), st.integers(1, 10))
def test_clipped_text_depends_on_the_whole_text_alone(pieces: list[str], half: int) -> None:
    whole = "".join(pieces)
    clipped = Clipped()
    for piece in pieces:
        clipped = clipped.plus(piece, limit=2 * half)
    assert clipped == Clipped.of(whole, limit=2 * half)
    assert clipped.size == len(whole)
    assert clipped.head == whole[:half]
    assert clipped.tail == whole[half:][-half:]
    if len(whole) <= 2 * half:
        assert clipped.text == whole
    else:
        assert f"{len(whole) - 2 * half} characters left out" in clipped.text


# --- the fold over recordings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("recording", CLAUDE, ids=str)
def test_many_at_once_is_the_same_as_one_by_one(recording: Recording) -> None:
    happened = events_of(recording.name)
    one_by_one = folded(*happened)
    assert one_by_one.events == sum(pieces_of(event) for event in happened)
    for size in (1, 2, 7, len(happened) or 1):
        state = RunState()
        for at in range(0, len(happened), size):
            state = advance_all(state, happened[at : at + size])
        assert state == one_by_one


@pytest.mark.parametrize("recording", [recording for recording in CLAUDE if recording.path.stat().st_size], ids=str)
def test_the_final_text_is_the_result_of_the_last_closing_statement(recording: Recording) -> None:
    lines = [json.loads(line) for line in recording.stdout.split(b"\n") if line.startswith(b"{")]
    results = [line for line in lines if line["type"] == "result"]
    state = folded(*events_of(recording.name))
    if not results:
        assert state.finished is None
        return
    last = results[-1]
    if "result" in last:
        assert state.text == last["result"]
    assert state.cost == last["total_cost_usd"]
    assert state.turns == sum(result["num_turns"] for result in results)
    assert state.usage.output_tokens == sum(result["usage"]["output_tokens"] for result in results)
    assert len(state.denials) == len({denial["tool_use_id"] for result in results for denial in result["permission_denials"]})
    assert state.session_id == last["session_id"]
    assert state.finishes == len(results)


EVENTS = st.one_of(
    st.builds(text, st.sampled_from(["A:0", "A:1", "B:0", "stdout"]), st.text("ab", max_size=4), whole=st.booleans(), parent=st.sampled_from([None, "t1"])),
    st.builds(ThinkingWritten, block=st.sampled_from(["A:0", "B:0"]), text=st.text("ab", max_size=4), whole=st.booleans()),
    st.builds(call, st.sampled_from(["t1", "t2"]), source=st.text("ab", max_size=4), whole=st.booleans(), parent=st.sampled_from([None, "t1"])),
    st.builds(ToolReturned, tool_id=st.sampled_from(["t1", "t2", "t3"]), text=st.text("ab", max_size=4), path=st.sampled_from([None, "/a", "/b"])),
    st.builds(MessageStarted, message_id=st.sampled_from("AB"), parent=st.sampled_from([None, "t1"])),
    st.builds(UsageCounted, message_id=st.sampled_from("AB"), input_tokens=st.integers(0, 9), output_tokens=st.integers(0, 9)),
    st.builds(Finished, subtype=st.just("success"), is_error=st.booleans(), text=st.sampled_from([None, "done"]), turns=st.just(1), cost=st.floats(0, 1)),
    st.builds(StderrWritten, text=st.text("ab", max_size=4)),
    st.builds(TaskChanged, task_id=st.sampled_from("xy"), status=st.sampled_from(["started", "completed"])),
    st.sampled_from([Noise(what="n"), Queued(), Paused(), Resumed(paused=1.0), Unrecognised(what="w", raw="r"), Exited(code=0), Signalled(signal="SIGINT"),
                     StopRequested(reason="cancel"), ApiRetried(attempt=1, max_attempts=2, delay=0.5, status=529), SessionOpened(session_id="s"),
                     PermissionAsked(ask_id="q", tool_id="t1", name="Bash"), QuestionAsked(ask_id="r"), AskWithdrawn(ask_id="r"),
                     Answered(ask_id="q", decision="deny", by="cli", note="no"), HostAsked(ask_id="h", what="w"), StatusChanged(status="running"),
                     AgentFailed(code="c")]),
)  # fmt: skip


@given(st.lists(EVENTS, max_size=40), st.lists(st.integers(0, 40), max_size=4))
def test_any_events_in_any_batches_give_one_state(happened: list[Event], cuts: list[int]) -> None:
    one_by_one = folded(*happened)
    edges = [0, *sorted(cuts), len(happened)]
    state = RunState()
    for start, end in pairwise(edges):
        state = advance_all(state, happened[start:end])
    assert state == one_by_one
    assert sum(count for _, count in joined(happened)) == len(happened) == state.events
    assert state.busy == sum(tool.is_running and tool.parent is None for tool in state.tools.values())


def test_every_event_has_its_place_in_the_fold() -> None:
    for kind in get_args(Event):
        example = {
            field.name: {"str": "x", "bool": True, "int": 1, "float": 1.0}.get(getattr(field.type, "__name__", ""), ())
            for field in msgspec.structs.fields(kind)
            if field.required
        }
        event = kind(**example)
        assert folded(event).events == 1
        assert advance_all(RunState(), [event, event]).events == 2
    assert len(get_args(Event)) == sum(
        isinstance(kind, type) and issubclass(kind, msgspec.Struct) and not name.startswith("_") and kind.__struct_config__.tag is not None
        for name, kind in vars(events).items()
    )


# --- provisional text -------------------------------------------------------------------------------------------------


def test_pieces_of_a_message_that_was_begun_anew_are_void() -> None:
    state = folded(
        MessageStarted(message_id="A"), text("A:0", "half"), call("t", whole=False), MessageStarted(message_id="B"), text("B:0", "again")
    )
    assert [block.name for block in state.blocks] == ["B:0"]
    assert state.tools == {}
    assert folded(*events_of("04a-rst-midway-then-ok")).text == "second answer"
    assert [block.body.text for block in folded(*events_of("04a-rst-midway-then-ok")).blocks] == ["second answer"]


def test_whole_blocks_stay_when_the_next_message_begins() -> None:
    state = folded(text("A:0", "ha"), text("A:0", "half", whole=True), MessageStarted(message_id="B"), text("B:0", "more"))
    assert [(block.body.text, block.whole) for block in state.blocks] == [("half", True), ("more", False)]


def test_pieces_are_one_block_until_it_is_whole_and_then_its_name_is_anothers() -> None:
    pieces = text("A:0", "h"), text("A:0", "a"), text("A:1", "x"), text("A:1", "xy", whole=True), text("A:0", "lf")
    state = folded(*pieces)
    assert [(block.body.text, block.whole) for block in state.blocks] == [("half", False), ("xy", True)]
    state = advance_all(state, [text("A:0", "half", whole=True), text("A:0", "new")])
    assert [(block.body.text, block.whole) for block in state.blocks] == [("half", True), ("xy", True), ("new", False)]
    assert [block.body.text for block in advance(state, MessageStarted(message_id="B")).blocks] == ["half", "xy"]


def test_of_calls_only_those_are_void_that_their_own_agent_never_made_whole() -> None:
    calls = call("whole"), call("begun", whole=False), call("subagents", whole=False, parent="p")
    assert folded(*calls, MessageStarted(message_id="B")).tools.keys() == {"whole", "subagents"}
    late = folded(call("t", source="{}"), call("t", source="late", whole=False))
    assert late.tools["t"].input.text == "{}"


def test_what_a_subagent_thinks_is_no_word_of_the_main_agent() -> None:
    assert folded(ThinkingWritten(block="A:0", text="hm")).model_spoke
    assert folded(call("t")).model_spoke
    assert not folded(call("s", parent="p")).model_spoke
    state = folded(
        ToolReturned(tool_id="t", text=""), ThinkingWritten(block="S:0", text="hm", parent="p"), MessageStarted(message_id="S", parent="p")
    )
    assert (state.model_spoke, state.phase) == (False, Phase.REQUESTING)


def test_a_subagents_message_does_not_void_the_main_agents() -> None:
    state = folded(
        text("A:0", "half"), MessageStarted(message_id="S", parent="t1"), text("S:0", "sub", parent="t1"), MessageStarted(message_id="B")
    )
    assert [block.name for block in state.blocks] == ["S:0"]


def test_what_a_killed_run_wrote_is_kept_as_unfinished() -> None:
    state = advance(folded(*events_of("05b-sigterm-midstream")), Exited(code=143))
    (block,) = state.blocks
    assert not block.whole
    assert block.body.text
    assert state.text == ""


def test_the_closing_statement_voids_what_never_became_whole() -> None:
    state = folded(text("A:0", "half"), Finished(subtype="success", is_error=False))
    assert state.blocks == ()


def test_without_a_closing_statement_the_text_is_that_of_the_last_message() -> None:
    state = folded(
        text("A:0", "first", whole=True),
        MessageStarted(message_id="B"),
        text("B:0", "one ", whole=True),
        text("S:0", "sub", whole=True, parent="t1"),
        ThinkingWritten(block="B:1", text="hm", whole=True),
        text("B:2", "two", whole=True),
    )
    assert state.text == "one two"


def test_a_plain_stream_is_the_text_and_is_never_void() -> None:
    state = folded(text("stdout", "a\n"), MessageStarted(message_id="x"), text("stdout", "b\n"), Exited(code=0))
    assert state.text == "a\nb\n"


def test_a_text_of_the_cli_itself_is_marked_and_no_model_spoke() -> None:
    state = folded(*events_of("13a-no-key"))
    assert [block.synthetic for block in state.blocks] == [True]
    assert not state.model_spoke
    assert folded(*events_of("01-success-text")).model_spoke


# --- tools, tasks, usage ----------------------------------------------------------------------------------------------


def test_a_tool_goes_from_its_first_piece_to_its_result() -> None:
    state = folded(call("t", source='{"a"', whole=False), call("t", source=":1}", whole=False))
    assert state.tools["t"].input.text == '{"a":1}'
    assert not state.running_tools
    state = advance(state, call("t", source='{"a":1,"b":2}'))
    assert [tool.name for tool in state.running_tools] == ["Bash"]
    state = advance(state, ToolReturned(tool_id="t", text="out", is_error=True, path="/x"))
    tool = state.tools["t"]
    assert (tool.input.text, tool.result, tool.is_error, tool.path) == ('{"a":1,"b":2}', Clipped("out"), True, "/x")
    assert state.running_tools == ()
    assert state.files == ("/x",)


def test_tools_of_a_run_that_has_ended_do_not_run() -> None:
    assert folded(call("t"), Exited(signal="SIGKILL")).running_tools == ()


def test_the_result_may_come_before_the_message_is_over() -> None:
    state = folded(*events_of("02b-tools-bypass-sandbox"))
    assert [(tool.name, tool.is_error) for tool in state.tools.values()] == [
        ("Write", False), ("Bash", True), ("Read", False), ("Bash", False), ("Edit", False),
    ]  # fmt: skip
    assert state.files == ("/home/user/project/hello.txt",)


def test_background_tasks_run_until_they_are_told_to_have_ended() -> None:
    happened = events_of("13d-bash-background")
    last = next(at for at, event in enumerate(happened) if isinstance(event, Finished))
    assert len(folded(*happened[: last + 1]).tasks) == 1
    assert folded(*happened).tasks == {}


def test_usage_is_estimated_while_it_is_written_and_exact_at_the_end() -> None:
    state = folded(
        UsageCounted(message_id="A", input_tokens=10, output_tokens=1),
        UsageCounted(message_id="A", output_tokens=42),
        UsageCounted(message_id="B", input_tokens=5, output_tokens=2),
    )
    assert state.usage == Usage(input_tokens=15, output_tokens=44)
    state = advance(state, Finished(subtype="success", is_error=False, usage=Usage(input_tokens=16, output_tokens=50), cost=0.5, turns=2))
    state = advance(state, UsageCounted(message_id="C", input_tokens=1, output_tokens=1))
    assert state.usage == Usage(input_tokens=17, output_tokens=51)
    state = advance(state, Finished(subtype="success", is_error=False, usage=Usage(input_tokens=2, output_tokens=3), cost=0.75, turns=1))
    assert (state.usage, state.cost, state.turns, state.finishes) == (Usage(input_tokens=18, output_tokens=53), 0.75, 3, 2)


def test_what_several_turns_have_cost_and_counted_is_kept_where_the_last_says_nothing_of_it() -> None:
    counts = Usage(input_tokens=1, output_tokens=2, cache_read_tokens=3, cache_creation_tokens=4)
    said, nothing = Finished(subtype="success", is_error=False, usage=counts, cost=0.5), Finished(subtype="success", is_error=False)
    assert folded(said, nothing).cost == 0.5
    assert folded(said, said).usage == Usage(input_tokens=2, output_tokens=4, cache_read_tokens=6, cache_creation_tokens=8)


def test_a_call_that_was_denied_is_one_denial_in_whatever_turns_it_is_told() -> None:
    def denied(*tool_ids: str) -> Finished:
        return Finished(subtype="success", is_error=False, denials=tuple(Denial(name="Bash", tool_id=tool_id) for tool_id in tool_ids))

    assert [denial.tool_id for denial in folded(denied("t"), denied("t", "u")).denials] == ["t", "u"]
    assert len(folded(denied(""), denied("")).denials) == 2, "those without an id cannot be told apart"


def test_the_estimate_of_many_messages_loses_none() -> None:
    state = advance_all(RunState(), [UsageCounted(message_id=f"m{n}", input_tokens=2, output_tokens=3) for n in range(1000)])
    assert state.usage == Usage(input_tokens=2000, output_tokens=3000)
    assert len(state.counted) == fold.COUNTED_LIMIT


def test_a_second_turn_begins_without_the_first_ones_failure() -> None:
    state = folded(ApiRetried(attempt=1, max_attempts=10, delay=1.0, status=529), AgentFailed(code="server_error"))
    assert state.failure is not None
    state = advance(state, SessionOpened(session_id="s"))
    assert (state.failure, state.retry, state.retries, len(state.problems)) == (None, None, 1, 1)


# --- phases -----------------------------------------------------------------------------------------------------------


def test_the_phases_of_a_run() -> None:
    seen: list[Phase] = [RunState().phase]
    state = RunState()
    for event in (
        Queued(),
        Started(shim_pid=1, agent_pid=2),
        SessionOpened(session_id="s"),
        StatusChanged(status="requesting"),
        ApiRetried(attempt=1, max_attempts=10, delay=1.0, status=429),
        MessageStarted(message_id="A"),
        ThinkingWritten(block="A:0", text="hm"),
        text("A:1", "I will"),
        call("t"),
        PermissionAsked(ask_id="q", tool_id="t", name="Bash"),
        Answered(ask_id="q", decision="allow"),
        StatusChanged(status="running"),
        Paused(),
        Resumed(paused=2.0),
        ToolReturned(tool_id="t", text="x"),
        MessageStarted(message_id="B"),
        text("B:0", "done", whole=True),
        Finished(subtype="success", is_error=False),
        StatusChanged(status="idle"),
        StopRequested(reason="linger"),
        Exited(code=0),
    ):
        state = advance(state, event)
        if state.phase is not seen[-1]:
            seen.append(state.phase)
    assert seen == [
        Phase.QUEUED, Phase.STARTING, Phase.REQUESTING, Phase.RETRYING, Phase.REQUESTING, Phase.THINKING, Phase.WRITING, Phase.TOOL, Phase.ASKING,
        Phase.TOOL, Phase.PAUSED, Phase.TOOL, Phase.REQUESTING, Phase.WRITING, Phase.WAITING, Phase.STOPPING, Phase.ENDED,
    ]  # fmt: skip


def test_after_its_last_call_a_run_asks_the_model_again() -> None:
    assert folded(call("t"), ToolReturned(tool_id="t", text="")).phase is Phase.REQUESTING
    assert folded(call("t"), call("u"), ToolReturned(tool_id="t", text="")).phase is Phase.TOOL
    assert folded(call("t"), call("s", parent="t"), ToolReturned(tool_id="s", text="", parent="t")).phase is Phase.TOOL
    assert folded(call("t", whole=False)).phase is Phase.WRITING
    assert folded(StatusChanged(status="idle"), StatusChanged(status="running")).phase is Phase.REQUESTING
    assert folded(PermissionAsked(ask_id="q", tool_id="t", name="Bash"), Answered(ask_id="q", decision="deny")).phase is Phase.REQUESTING
    assert folded(PermissionAsked(ask_id="q", tool_id="t", name="Bash"), ToolReturned(tool_id="t", text="")).asks == ()


def test_a_turn_that_says_less_of_its_session_takes_nothing_from_what_is_known() -> None:
    first = SessionOpened(
        session_id="s", model="m", permission_mode="plan", version="2.1", api_key_source="none", mcp_servers=(("x", "ok"),)
    )
    for state in (folded(first), folded(first, SessionOpened(session_id="", mcp_servers=first.mcp_servers))):
        assert (state.session_id, state.model, state.permission_mode, state.agent_version, state.api_key_source, state.mcp_servers) == (
            "s", "m", "plan", "2.1", "none", (("x", "ok"),),
        )  # fmt: skip


def test_a_subagent_at_work_is_a_tool_at_work() -> None:
    state = folded(
        call("t1", "Task"), text("S:0", "sub", parent="t1"), call("t2", parent="t1"), ToolReturned(tool_id="t2", text="", parent="t1")
    )
    assert state.phase is Phase.TOOL


def test_a_whole_text_while_a_call_runs_is_a_tool_at_work() -> None:
    assert folded(call("t"), text("A:1", "so"), text("A:1", "so", whole=True)).phase is Phase.TOOL
    assert folded(call("t"), text("A:1", "so")).phase is Phase.WRITING
    assert folded(call("t"), MessageStarted(message_id="S", parent="t")).phase is Phase.TOOL
    assert folded(call("t"), StatusChanged(status="idle")).phase is Phase.WAITING


def test_what_the_supervisor_records_is_added_up() -> None:
    degraded, left = Degraded(stream="stdout", error="no space"), LeftBehind(processes=())
    begun, odd = Started(shim_pid=1, agent_pid=2), Unrecognised(what="x", raw="y")
    stood = Paused(), Resumed(paused=2.0), Paused(), Resumed(paused=3.0), Frozen(seconds=4.0), Frozen(seconds=5.0)
    state = folded(begun, *stood, odd, odd, degraded, left)
    assert (state.started, state.unrecognised) == (begun, 2)
    assert (state.pauses, state.paused, state.is_paused, state.frozen) == (2, 5.0, False, 9.0)
    assert (state.degraded, state.left_behind) == ((degraded,), left)


def test_the_model_is_the_one_that_it_went_on_with() -> None:
    opened = SessionOpened(session_id="s", model="first")
    assert folded(opened, ModelSwitched(model="second")).model == "second"
    assert folded(opened, ModelSwitched(model="")).model == "first"


def test_the_first_stop_request_and_the_first_limit_stand() -> None:
    state = folded(
        LimitReached(limit="wall", seconds=9.0),
        StopRequested(reason="timeout"),
        StopRequested(reason="cancel"),
        LimitReached(limit="stall", seconds=1.0),
    )
    assert state.stop is not None
    assert state.stop.reason == "timeout"
    assert state.limit is not None
    assert state.limit.limit == "wall"


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_everything_that_grows_is_bounded_and_what_is_left_out_is_counted() -> None:
    many = 1200
    happened: list[Event] = []
    for n in range(many):
        happened += [
            MessageStarted(message_id=f"m{n}"),
            text(f"m{n}:0", "x" * 100, whole=True),
            call(f"t{n}"),
            ToolReturned(tool_id=f"t{n}", text="y", path=f"/f{n}"),
            AgentFailed(code=f"c{n}", text="z" * 10_000),
            TaskChanged(task_id=f"k{n}", status="started", description="d" * 10_000),
            PermissionAsked(ask_id=f"q{n}", tool_id="none", name="Bash"),
            Signalled(signal="SIGTERM"),
            StderrWritten(text="e" * 1000),
        ]
    state = advance_all(RunState(), happened)
    assert (len(state.blocks), state.blocks_left_out) == (fold.BLOCKS_LIMIT, many - fold.BLOCKS_LIMIT)
    assert (len(state.tools), state.tools_left_out) == (fold.TOOLS_LIMIT, many - fold.TOOLS_LIMIT)
    assert (len(state.files), state.files_left_out) == (fold.FILES_LIMIT, many - fold.FILES_LIMIT)
    assert len(state.problems) == fold.PROBLEMS_LIMIT
    assert len(state.tasks) == fold.TASKS_LIMIT
    assert len(state.asks) == OPEN_LIMIT
    assert (len(state.asked), state.questions.left_out) == (ASKED_LIMIT, many - ASKED_LIMIT)
    assert len(state.signals) == fold.RECORDS_LIMIT
    assert len(state.stderr.text) < fold.STDERR_LIMIT + 100
    assert state.stderr.size == 1000 * many
    assert state.blocks[-1].name == f"m{many - 1}:0"
    denials = tuple(Denial(name="Bash", tool_id=f"d{n}", input="i" * 10_000) for n in range(300))
    state = advance(state, Finished(subtype="s", is_error=True, text="t" * 3_000_000, errors=("e" * 10_000,) * 100, denials=denials))
    assert (len(state.denials), state.denials_left_out) == (fold.DENIALS_LIMIT, 200)
    assert len(msgspec.json.encode(state)) < 20_000_000


def test_a_running_tool_outlives_any_number_of_ended_ones() -> None:
    happened: list[Event] = [call("long", "Task")]
    for n in range(fold.TOOLS_LIMIT + 10):
        happened += [call(f"t{n}", parent="long"), ToolReturned(tool_id=f"t{n}", text="", parent="long")]
    state = advance_all(RunState(), happened)
    assert ("long" in state.tools, state.busy) == (True, 1)
    assert advance_all(state, [call(f"u{n}") for n in range(fold.TOOLS_LIMIT + 10)]).busy == fold.TOOLS_LIMIT


def test_five_megabytes_in_pieces_of_forty_characters_are_joined_before_they_are_kept() -> None:
    count = 125_000
    piece = "0123456789" * 4

    def flood() -> list[Event]:
        happened: list[Event] = [MessageStarted(message_id="A")]
        for _ in range(count):
            happened += [Noise(what="system/thinking_tokens"), text("A:0", piece)]
        return happened

    happened = flood()
    assert sum(1 for _ in joined(happened)) <= 3
    # In blocks as a reader gets them, each is one step of the fold.
    state, steps = RunState(), 0
    for at in range(0, len(happened), 500):
        batch = happened[at : at + 500]
        steps += sum(1 for _ in joined(batch))
        state = advance_all(state, batch)
    assert steps <= 2 * len(happened) / 500 + 2
    (block,) = state.blocks
    assert block.body.size == count * len(piece)
    assert len(block.body.head) + len(block.body.tail) == BLOCK_LIMIT
    assert state == advance_all(RunState(), happened)


def test_a_flood_of_input_and_of_results_is_bounded_too() -> None:
    state = advance_all(RunState(), [call("t", source="x" * 40, whole=False) for _ in range(100_000)])
    assert state.tools["t"].input.size == 4_000_000
    state = advance_all(state, [call("t", source="x" * 5_000_000), ToolReturned(tool_id="t", text="y" * 5_000_000)])
    tool = state.tools["t"]
    assert tool.result is not None
    assert len(tool.input.text) < TOOL_TEXT_LIMIT + 100
    assert len(tool.result.text) < TOOL_TEXT_LIMIT + 100


def test_a_generated_flood_goes_from_bytes_to_state() -> None:
    parts = [{"type": "stream_event", "event": {"type": "message_start", "message": {"id": "A"}}}]
    parts += [
        {
            "type": "stream_event",
            "event": {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f"{n:039}\n"}},
        }
        for n in range(20_000)
    ]
    data = b"\n".join(map(msgspec.json.encode, parts)) + b"\n"
    decoder, state = ClaudeDecoder(), RunState()
    for at in range(0, len(data), 65_536):
        state = advance_all(state, decoder.feed(data[at : at + 65_536]))
    assert state.events == len(parts) + 1  # message_start is a beginning and a count
    (block,) = state.blocks
    assert block == Block(name="A:0", kind=BlockKind.TEXT, body=Clipped.of("".join(f"{n:039}\n" for n in range(20_000)), limit=BLOCK_LIMIT))
