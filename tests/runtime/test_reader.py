"""A journal read again, and read while it grows: the order of what happened, whatever the pieces and whatever is missing."""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cc_executor.model.event import Event, Exited, Paused, Repeated, Resumed, Started, StderrWritten, TextWritten
from cc_executor.policy.loopguard import REPEATS
from cc_executor.runtime import reader as reading
from cc_executor.runtime.reader import JournalReader, events_from, replay
from cc_executor.shim import records
from cc_executor.store.journal import RunFolder
from support.recordings import Recording, events_of, together

RUN_ID: Final = f"{1:012x}{'0' * 14}"


class Written(NamedTuple):
    """A block of output."""

    stream: int
    data: bytes


class Noted(NamedTuple):
    """A control record."""

    kind: str
    fields: dict[str, Any]


STARTED: Final = Noted("started", {"shim_pid": 1, "agent_pid": 2})
EXITED: Final = Noted("exited", {"code": 0})


class Journal:
    """Writes what a shim writes, one step every 10 ms; every block has its index entry."""

    def __init__(self, folder: Path) -> None:
        path = folder / RUN_ID
        path.mkdir()
        self.folder = RunFolder(path)
        self._t = 0.0
        self._seq = 0
        self._entries = 0
        self._offsets = [0, 0]

    def step(self, what: Written | Noted, *, index: bool = True) -> None:
        self._t += 0.01
        if isinstance(what, Noted):
            record = {"seq": self._seq, "t": round(self._t, 6), "at": 1e9 + self._t, "kind": what.kind, **what.fields}
            self._seq += 1
            self._append(records.CONTROL, json.dumps(record).encode() + b"\n")
            return
        if index:
            self._append(records.INDEX_FILE, records.INDEX.pack(self._offsets[what.stream], self._t, self._entries, what.stream))
            self._entries += 1
        self._offsets[what.stream] += len(what.data)
        self._append(records.STREAMS[what.stream], what.data)

    def steps(self, *whats: Written | Noted) -> RunFolder:
        for what in whats:
            self.step(what)
        return self.folder

    def _append(self, name: str, data: bytes) -> None:
        with (self.folder.path / name).open("ab") as file:
            file.write(data)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def out(text: str | bytes) -> Written:
    return Written(0, text if isinstance(text, bytes) else text.encode())


def err(text: str) -> Written:
    return Written(1, text.encode())


def events(folder: RunFolder, agent: str = "shell") -> list[Event]:
    return [event for batch in replay(folder, agent=agent) for event in batch]


def told(story: Sequence[Event]) -> list[str]:
    """The story in short, pieces of one stream joined."""
    short: list[str] = []
    for event in story:
        match event:
            case TextWritten(text=text) | StderrWritten(text=text):
                head = "out:" if isinstance(event, TextWritten) else "err:"
                if short and short[-1].startswith(head):
                    short[-1] += text
                else:
                    short.append(head + text)
            case _:
                short.append(type(event).__name__)
    return short


def drained(reader: JournalReader) -> list[Event]:
    found: list[Event] = []
    while (batch := reader.read()) is not None:
        found += batch
    return found


def test_before_a_record_comes_what_was_written_before_it(journal: Journal) -> None:
    folder = journal.steps(
        STARTED, out("a\n"), err("b\n"), Noted("paused", {}), Noted("resumed", {}), err("c\n"), out("d\n"), Noted("paused", {}), EXITED
    )
    assert told(events(folder)) == ["Started", "out:a\n", "err:b\n", "Paused", "Resumed", "out:d\n", "err:c\n", "Paused", "Exited"]


steps = st.lists(
    st.one_of(
        st.builds(
            Written, st.integers(0, 1), st.sampled_from([b"x\n", b"long line " * 9 + b"\n", "é".encode()[:1], b"\xa9 ", b"half", b"\n"])
        ),
        st.just(Noted("paused", {})),
        st.just(Noted("resumed", {})),
    ),
    max_size=25,
)


@settings(max_examples=120, deadline=None)
@given(
    steps,
    st.lists(st.sampled_from([0, 0, 1, 2, 5, 10_000]), min_size=30, max_size=30),
    st.sampled_from([(64 * 1024, 256 * 1024), (7, 28), (3, 4)]),
)
def test_read_while_it_grows_or_at_once_the_story_is_the_same(
    story: list[Written | Noted], looks: list[int], sizes: tuple[int, int]
) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "PIECE", sizes[0])
        patch.setattr(reading, "AHEAD", sizes[1])
        journal = Journal(Path(name))
        live: list[Event] = []
        reader = JournalReader(journal.folder, agent="shell")
        for step, look in zip([STARTED, *story, EXITED], [*looks[: len(story) + 1], 10_000], strict=True):
            journal.step(step)
            for _ in range(look):
                if (batch := reader.read()) is None:
                    break
                live += batch
        assert isinstance(reader.exited, Exited)
        again = events(journal.folder)
        assert _without_order_of_streams(live) == _without_order_of_streams(again)
        for stream, kind in enumerate((TextWritten, StderrWritten)):
            written = b"".join(step.data for step in story if isinstance(step, Written) and step.stream == stream)
            assert "".join(event.text for event in again if isinstance(event, kind)) == written.decode(errors="replace")
        assert [type(event) for event in again if not isinstance(event, TextWritten | StderrWritten)] == [
            {"started": Started, "paused": Paused, "resumed": Resumed, "exited": Exited}[step.kind]
            for step in [STARTED, *story, EXITED]
            if isinstance(step, Noted)
        ]


def _without_order_of_streams(story: Sequence[Event]) -> list[tuple[str, str]]:
    """Between two records: what each stream said. Which of two streams spoke first between them, the journal does not tell."""
    parts: list[tuple[str, str]] = []
    text = {TextWritten: "", StderrWritten: ""}
    for event in story:
        if isinstance(event, TextWritten | StderrWritten):
            # A character whose bytes came before a record and after it belongs to the moment at which it was whole.
            text[type(event)] += event.text
        else:
            parts.append((text[TextWritten], text[StderrWritten]))
            parts.append((type(event).__name__, ""))
            text = {TextWritten: "", StderrWritten: ""}
    return parts


def test_what_is_written_between_a_look_for_records_and_one_at_the_output_keeps_its_place(journal: Journal) -> None:
    late: list[Written | Noted] = []

    class Late(RunFolder):
        def size(self, stream: str) -> int:
            if stream == records.STDOUT:
                journal.steps(*late)
                late.clear()
            return super().size(stream)

    journal.steps(STARTED, out("one\n"))
    reader = JournalReader(Late(journal.folder.path), agent="shell")
    assert told(reader.read() or []) == ["Started"]
    late += [err("warn\n"), Noted("paused", {}), out("two\n"), EXITED]
    assert told(drained(reader)) == ["out:one\n", "err:warn\n", "Paused", "out:two\n", "Exited"]


def test_nothing_more_is_read_after_the_end(journal: Journal) -> None:
    folder = journal.steps(STARTED, out("a"), EXITED, out("never"))
    reader = JournalReader(folder, agent="shell")
    assert told(drained(reader)) == ["Started", "out:anever", "Exited"]  # the last record takes all there is
    assert reader.read() is None
    assert reader.exited is not None
    journal.step(out("later"))
    assert reader.read() is None


def test_a_copy_goes_its_own_way(journal: Journal) -> None:
    folder = journal.steps(STARTED, out("half "))
    reader = JournalReader(folder, agent="shell")
    assert told(drained(reader)) == ["Started", "out:half "]
    position = reader.copy()
    journal.steps(out("whole\n"), Noted("paused", {}), out("more\n"), EXITED)
    rest = ["out:whole\n", "Paused", "out:more\n", "Exited"]
    assert told(drained(reader)) == rest
    for _ in range(2):
        assert told(list(events_from(position))) == rest
    assert position.exited is None


def test_a_copy_made_between_two_records_tells_the_second(journal: Journal) -> None:
    folder = journal.steps(STARTED, Noted("paused", {}), Noted("resumed", {}), EXITED)
    reader = JournalReader(folder, agent="shell")
    assert told(reader.read() or []) == ["Started"]
    position = reader.copy()
    assert told(drained(reader)) == ["Paused", "Resumed", "Exited"]
    assert told(list(events_from(position))) == ["Paused", "Resumed", "Exited"]


def test_a_copy_made_in_the_midst_of_what_was_read_ahead_tells_the_rest(journal: Journal) -> None:
    lines = "".join(f"{number}\n" for number in range(40_000))  # 228,890 bytes
    folder = journal.steps(STARTED, out(lines))
    reader = JournalReader(folder, agent="shell")
    first = [event for _ in range(3) for event in reader.read() or []]
    position = reader.copy()
    journal.steps(Noted("paused", {}), out("last\n"), EXITED)
    rest = drained(reader)
    assert told([*first, *rest]) == ["Started", f"out:{lines}", "Paused", "out:last\n", "Exited"]
    assert told(list(events_from(position))) == told(rest)


def test_copies_keep_nothing_of_what_was_read_ahead(journal: Journal) -> None:
    reader = JournalReader(journal.steps(STARTED, out("line of text\n" * 300_000)), agent="shell")
    tracemalloc.start()
    try:
        positions = [reader.copy() for _ in range(50) if reader.read()]
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(positions) == 50
    assert kept < 3 * reading.AHEAD


def test_a_copy_made_within_a_line_reads_it_whole(journal: Journal) -> None:
    line = '{"type":"assistant","message":{"id":"A","model":"m","content":[{"type":"text","text":"hello"}]}}\n'
    folder = journal.steps(STARTED, out(line[:40]))
    reader = JournalReader(folder, agent="claude")
    drained(reader)
    position = reader.copy()
    journal.steps(out(line[40:]), EXITED)
    rest = told(drained(reader))
    assert "out:hello" in rest
    assert told(list(events_from(position))) == rest


def test_a_circle_is_told_once_by_each_copy_and_not_where_nobody_wants_to_know(journal: Journal) -> None:
    def call(number: int) -> Written:
        block = {"type": "tool_use", "id": str(number), "name": "Bash", "input": {"command": "ls"}}
        result = {"type": "tool_result", "tool_use_id": str(number), "content": "a"}
        return out(
            json.dumps({"type": "assistant", "message": {"id": str(number), "model": "m", "content": [block]}})
            + "\n"
            + json.dumps({"type": "user", "message": {"role": "user", "content": [result]}})
            + "\n"
        )

    def circles(story: Sequence[Event]) -> list[int]:
        return [event.count for event in story if isinstance(event, Repeated)]

    folder = journal.steps(STARTED, *(call(number) for number in range(REPEATS - 1)))
    reader = JournalReader(folder, agent="claude")
    assert circles(drained(reader)) == []
    position = reader.copy()
    journal.steps(call(REPEATS), EXITED)
    assert circles(drained(reader)) == circles(list(events_from(position))) == [REPEATS]
    assert circles(drained(JournalReader(folder, agent="claude", guards=False))) == []


@pytest.mark.row("faults", "torn last record", "readers pass it over")
def test_a_torn_record_is_left_until_it_is_whole(journal: Journal) -> None:
    folder = journal.steps(STARTED)
    control = folder.path / records.CONTROL
    reader = JournalReader(folder, agent="shell")
    drained(reader)
    line = json.dumps({"seq": 1, "t": 1.0, "at": 1.0, "kind": "paused"}).encode() + b"\n"
    for end in range(1, len(line)):
        control.write_bytes(control.read_bytes()[: -(end - 1) or None] + line[:end])
        assert reader.read() is None
    control.write_bytes(control.read_bytes()[: -(len(line) - 1)] + line)
    assert told(drained(reader)) == ["Paused"]


def test_records_of_a_version_to_come_are_passed_over(journal: Journal) -> None:
    folder = journal.steps(STARTED, out("a\n"), Noted("teleported", {"to": "mars"}), Noted("paused", {"new_field": 1}), out("b\n"), EXITED)
    assert told(events(folder)) == ["Started", "out:a\n", "Paused", "out:b\n", "Exited"]


@pytest.mark.parametrize("damage", [b"", b"\0" * 7, b"\xff" * 24 * 3, b"\0" * 24 * 3])
def test_a_damaged_index_costs_the_order_and_no_byte(journal: Journal, damage: bytes) -> None:
    folder = journal.steps(STARTED, out("a\n"), Noted("paused", {}), out("b\n"), err("c\n"), EXITED)
    (folder.path / records.INDEX_FILE).write_bytes(damage)
    story = events(folder)
    assert "".join(event.text for event in story if isinstance(event, TextWritten)) == "a\nb\n"
    assert "".join(event.text for event in story if isinstance(event, StderrWritten)) == "c\n"
    assert [name for name in told(story) if ":" not in name] == ["Started", "Paused", "Exited"]
    assert told(story)[0] == "Started", "nothing was written before it"


def test_output_without_an_index_entry_counts_to_the_block_before_it(journal: Journal) -> None:
    journal.steps(STARTED, out("a\n"))
    journal.step(out("b\n"), index=False)
    assert told(events(journal.steps(Noted("paused", {}), out("c\n"), EXITED))) == ["Started", "out:a\nb\n", "Paused", "out:c\n", "Exited"]


@pytest.mark.row("faults", "torn last record", "readers pass it over")
def test_a_journal_without_an_end_gives_what_there_is_down_to_the_last_half_line(journal: Journal) -> None:
    line = b'{"type":"system","subtype":"init","session_id":"s"}'
    folder = journal.steps(STARTED, out(line))
    assert told(events(folder, "claude")) == ["Started", "SessionOpened"]
    assert told(list(events_from(JournalReader(folder, agent="claude")))) == ["Started", "SessionOpened"]
    assert told(events(RunFolder(folder.path.parent / "nothing"))) == []


def test_many_blocks_are_found_in_an_index_of_many_entries(journal: Journal) -> None:
    for number in range(3000):
        journal.step(out(f"{number}\n"))
        if number % 1000 == 500:
            journal.step(Noted("paused", {}))
    story = told(events(journal.steps(err("end\n"), EXITED)))
    assert [part.split("\n")[-2] if ":" in part else part for part in story] == [
        "500", "Paused", "1500", "Paused", "2500", "Paused", "2999", "err:end", "Exited",
    ]  # fmt: skip


@pytest.mark.parametrize("recording", [Recording("05d-sigint-in-bash"), Recording("05c-sigkill-midstream")], ids=str)
def test_a_recording_cut_anywhere_gives_the_same_events(recording: Recording, tmp_path: Path) -> None:
    data = recording.stdout
    pieces = Journal(tmp_path)
    pieces.step(STARTED)
    reader = JournalReader(pieces.folder, agent="claude")
    live: list[Event] = drained(reader)
    for start in range(0, len(data), 997):
        pieces.step(out(data[start : start + 997]))
        live += drained(reader)
    pieces.step(EXITED)
    live += drained(reader)
    assert isinstance(live[0], Started)
    assert isinstance(live[-1], Exited)
    assert together(live[1:-1]) == together(events_of(recording.name))
    assert together(events(pieces.folder, "claude")) == together(live)
