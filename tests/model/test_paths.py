from __future__ import annotations

import io
import json
from typing import Final

import pytest

from cc_executor.kernel.terminal import TerminalView
from cc_executor.model import toolcall
from cc_executor.model.ask import what_from, what_of
from cc_executor.model.bundle import static_bundle
from cc_executor.model.event import Answered, Event, PermissionAsked, Repeated, ToolCalled, ToolReturned
from cc_executor.model.fold import advance_all
from cc_executor.model.listrecord import Begun, ListState
from cc_executor.model.listrecord import advance as list_state
from cc_executor.model.paths import Roots, below
from cc_executor.model.receipt import AskedFor, FileChange
from cc_executor.model.report import run_report
from cc_executor.model.reportpage import run_page
from cc_executor.model.reporttext import run_text
from cc_executor.model.state import RunState
from cc_executor.model.tasklist import Task, TaskList
from cc_executor.model.taskrows import TaskBoard
from cc_executor.model.transcript import Bounds, Transcript
from support.receipts import receipt

CWD: Final = "/home/someone/project"


@pytest.mark.parametrize(
    ("path", "roots", "shown"),
    [
        ("/a/b/c.py", ("/a/b",), "c.py"),
        ("/a/b/c/d.py", ("/a/b/",), "c/d.py"),
        ("/a/b/c/", ("/a/b",), "c/"),
        ("/real/c.py", ("/link", "/real"), "c.py"),
        ("/a/b/c.py", ("/a", "/a/b"), "b/c.py"),
        ("/a/b/-rf", ("/a/b",), "-rf"),
        ("/a/b/..c/.d", ("/a/b",), "..c/.d"),
        ("/a/b/c.py", (), "/a/b/c.py"),
        ("/a/b/c.py", ("",), "/a/b/c.py"),
        ("/a/b/c.py", ("/",), "/a/b/c.py"),
        ("//a", ("/",), "//a"),
        ("/a/bc/d.py", ("/a/b",), "/a/bc/d.py"),
        ("/a/b", ("/a/b",), "/a/b"),
        ("/a/b/", ("/a/b",), "/a/b/"),
        ("/a/b//etc/passwd", ("/a/b",), "/a/b//etc/passwd"),
        ("/a/b/c//", ("/a/b",), "/a/b/c//"),
        ("/a/b/../c.py", ("/a/b",), "/a/b/../c.py"),
        ("/a/b/./c.py", ("/a/b",), "/a/b/./c.py"),
        ("/a/b/~/c.py", ("/a/b",), "/a/b/~/c.py"),
        ("/a/b/~root", ("/a/b",), "/a/b/~root"),
        ("/a/b/ c.py", ("/a/b",), "/a/b/ c.py"),
        ("/a/b/c.py\n", ("/a/b",), "/a/b/c.py\n"),
        ("/A/b/c.py", ("/a/b",), "/A/b/c.py"),
        ("b/c.py", ("/a/b",), "b/c.py"),
        ("C:\\a\\b\\c.py", ("/a/b",), "C:\\a\\b\\c.py"),
        ("\\\\host\\a\\b", ("/a/b",), "\\\\host\\a\\b"),
        ("/a/\udcff/c.py", ("/a/\udcff",), "c.py"),
        ("/a/\ufffd/c.py", ("/a/\udcff",), "/a/\ufffd/c.py"),
        ("/a/\u202eb/c\u202e.py", ("/a/\u202eb",), "c\u202e.py"),
        ("/a/n\nm/c.py", ("/a/n\nm",), "c.py"),
    ],
)
def test_a_path_is_seen_from_the_folder_that_it_lies_below_and_whole_where_that_would_mislead(path: str, roots: Roots, shown: str) -> None:
    assert below(path, roots) == shown


def test_a_path_is_shortened_where_it_is_a_path_and_nothing_else() -> None:
    call = {"file_path": f"{CWD}/a.py", "path": 3, "command": f"{CWD}/run {CWD}/a.py", "content": f"{CWD}/a.py"}
    source = json.dumps(call)
    assert toolcall.fields(source, (CWD,)) == {**call, "file_path": "a.py"}
    assert toolcall.fields(source) == call
    assert toolcall.summary(toolcall.fields(json.dumps({"path": CWD + "/src"}), (CWD,)) or {}) == "src"
    assert what_from(f"Bash: {CWD}/run", (CWD,)) == f"Bash: {CWD}/run", "a command is what is run"
    assert what_from(f"mcp__shell__run: {CWD}/run", (CWD,)) == f"mcp__shell__run: {CWD}/run"
    assert what_from("Edit", (CWD,)) == "Edit"


ASK: Final = PermissionAsked(ask_id="q", tool_id="w", name="Write", input=json.dumps({"file_path": f"{CWD}/w.py", "content": "x"}))
EVENTS: Final[list[Event]] = [
    ToolCalled(tool_id="r", name="Read", input=json.dumps({"file_path": f"{CWD}/sub/r.py", "limit": 3})),
    ToolReturned(tool_id="r", text="text"),
    ToolCalled(tool_id="w", name="Write", input=ASK.input),
    ASK,
    Answered(ask_id="q", what=what_of(ASK), decision="deny", by="view"),
    Repeated(name="Read", about=f"{CWD}/sub/r.py", count=5),
]
SEALED: Final = receipt(
    cwd=CWD, files=(FileChange(path=f"{CWD}/w.py", after="0" * 64, size=1),), asked=(AskedFor(kind="permission", what=what_of(ASK)),)
)


def test_wherever_a_call_is_shown_its_path_is_seen_from_the_runs_folder() -> None:
    page, stream = Transcript(roots=(CWD,)), io.StringIO()
    page.feed(EVENTS)
    read, _, waits, denied, circle = page.items
    assert (read.summary, read.input) == ("sub/r.py", "file_path: sub/r.py\nlimit: 3")
    assert waits.text == "Waits for leave to use Write: w.py"
    assert denied.text == "Denied by view: Write: w.py"
    assert "Read(sub/r.py)" in circle.text
    for again in (page.origin(), page.origin().copy(bounds=Bounds(), ceiling=10)):  # older pages are made of these
        again.feed(EVENTS)
        assert again.items == page.items
    TerminalView(stream).update(page)
    assert "⏺ Read(sub/r.py)\n" in stream.getvalue()
    told = run_report(SEALED, [(0.0, EVENTS)])
    assert [call.about for call in told.calls] == ["sub/r.py", "w.py"]
    board = TaskBoard(TaskList(tasks=(Task(id="a", text="p"),), cwd=CWD), roots=lambda _: (CWD,))
    board.show(list_state(ListState(), Begun(at=0.0, task="a", attempt=1, run_id="r")))
    board.apply("a", EVENTS[:3], RunState(), 0.0)
    shown = [
        stream.getvalue(),
        str(static_bundle(SEALED, page)[0]["text/html"]),
        run_page(told),
        run_text(told),
        board.row("a").line,
    ]
    for text in shown:
        assert "w.py" in text
        assert f"{CWD}/" not in text


def test_what_is_kept_has_whole_paths() -> None:
    data = static_bundle(SEALED, Transcript(roots=(CWD,)))[0]
    assert json.dumps(data).count(f"{CWD}/w.py") == 2, "the receipt's file and its question"
    assert SEALED.is_intact
    (asked,) = advance_all(RunState(), EVENTS).asked
    assert asked.what == f"Write: {CWD}/w.py"
