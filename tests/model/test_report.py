"""Reports as folds: from the recordings of the real agent, without a clock, and with nothing of others that acts."""

from __future__ import annotations

import json
import re
import tracemalloc
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from markdown_it import MarkdownIt
from msgspec.structs import replace

from cc_executor.model import toolcall
from cc_executor.model.event import Event, Exited, HookRan, Started, ToolCalled, ToolReturned
from cc_executor.model.hook import HookReport, HookStatus, Moment
from cc_executor.model.listrecord import Begun, Capped, Closed, Ended, HookTold, ListStatus, Record, Skipped, Waiting
from cc_executor.model.listreport import critical_path, list_report
from cc_executor.model.outcome import Outcome, OutcomeKind
from cc_executor.model.phase import Phase
from cc_executor.model.receipt import AskedFor, Check, Exit, FileChange, Receipt, Standing, StreamDigest, TokenUsage
from cc_executor.model.report import LABEL_CHARS, RunReport, run_report
from cc_executor.model.reportpage import list_page, notebook_html, run_page
from cc_executor.model.reporttext import list_text, run_text
from cc_executor.model.tasklist import Task, TaskKind, TaskList
from cc_executor.policy.redact import Redactor
from kernel.attacks import EVERY
from support.receipts import receipt
from support.recordings import CLAUDE, Recording, events_of


def timed(*events: Event, step: float = 0.1) -> list[tuple[float, list[Event]]]:
    return [(number * step, [event]) for number, event in enumerate(events)]


def told(name: str) -> RunReport:
    return run_report(receipt(), timed(*events_of(name)))


def test_secrets_are_taken_out_before_anything_is_cut() -> None:
    key = "sk-ant-REDACTED"
    command = f"curl {'x' * (toolcall.SUMMARY_CHARS - 16)} {key}"
    events = [
        ToolCalled(tool_id="1", name="Bash", input=json.dumps({"command": command})),
        ToolCalled(tool_id="2", name=key, input=json.dumps({"command": f"{key[:9]}\x1b[31m{key[9:]}"})),
    ]
    page = run_text(run_report(receipt(), timed(*events), label=f"{'l' * (LABEL_CHARS - 16)} {key}", mask=Redactor().text))
    assert "sk-ant" not in page
    assert "curl" in page


def full_receipt(text: str = "It is done.") -> Receipt:
    """One that has something in every part."""
    return receipt(
        text=text,
        agent_version="2.1.329",
        cwd=f"/home/{text}",
        model=text,
        usage=TokenUsage(input_tokens=1000, output_tokens=20, cache_read_tokens=3),
        turns=2,
        retries=3,
        denials=(text,),
        files=(FileChange(path=text, before="a" * 64, after="b" * 64, size=7), FileChange(path="/gone", before="c" * 64)),
        checks=(Check(what=text, passed=False, detail=text), Check(what="pytest", passed=True), Check(what="later", passed=None)),
        standing=Standing.CONTRADICTED,
        outcome=Outcome(kind=OutcomeKind.FAILED, summary=text, evidence=(text, "exit code = 3"), cure=text),
        exit=Exit(code=3, stopped_for=text, left_behind=(text,)),
        hooks=(HookReport(hook=text, moment=Moment.AFTER_RUN, status=HookStatus.FAILED, detail=text, seconds=0.1),),
        asked=(AskedFor(kind="permission", what=text, decision="allow_run", by=text, note=text), AskedFor(kind="question", what="which?")),
        journal={"stdout": StreamDigest(bytes=10, dropped=12_345, sha256="d" * 64)},
    )


def full_report(text: str = "It is done.") -> RunReport:
    events = [
        Started(shim_pid=1, agent_pid=2, t=0.0),
        ToolCalled(tool_id="1", name=text, input='{"command": "ls"}'),
        HookRan(name=text, status="error", text=text),
        ToolReturned(tool_id="1", text=text, is_error=True),
        ToolCalled(tool_id="2", name="Bash", input=text),
        Exited(code=3, t=1.0),
    ]
    return run_report(full_receipt(text), timed(*events), label=text)


@pytest.mark.parametrize("recording", CLAUDE, ids=str)
def test_every_recording_makes_the_same_report_twice_and_counts_what_was_called(recording: Recording) -> None:
    events = events_of(recording.name)
    one, other = told(recording.name), run_report(receipt(), timed(*events))
    assert run_text(one) == run_text(other)
    assert run_page(one) == run_page(other)
    called = {event.tool_id for event in events if isinstance(event, ToolCalled) and event.whole}
    assert one.tool_calls == len(called)
    failed = {event.tool_id for event in events if isinstance(event, ToolReturned) and event.is_error}
    assert one.tool_failures == len(failed & called)
    assert sum(one.phases.values()) == pytest.approx(max(0, len(events) - 1) * 0.1, rel=0.2)


def test_tools_retries_and_the_agents_hooks_are_counted() -> None:
    hooked = told("12a-hooks-settings")
    assert {name: (use.calls, use.failed) for name, use in hooked.tools.items()} == {"Bash": (2, 2), "Write": (1, 0)}
    assert hooked.agent_hooks["PreToolUse:Bash"] == (2, 0)
    assert [call.about for call in hooked.calls] == ["/home/user/project/a.txt", "echo forbidden", "exit 4"]
    throttled = told("03g-529-once-then-ok")
    assert throttled.retries == {"529": 1}
    assert throttled.phases[Phase.RETRYING] > 0


def test_times_are_those_of_the_phases_and_a_call_that_never_came_back_is_said() -> None:
    events = [
        (0.0, [Started(shim_pid=1, agent_pid=2)]),
        (1.0, [ToolCalled(tool_id="1", name="Bash", input="{}")]),
        (5.0, [Exited(signal="SIGKILL")]),
    ]
    made = run_report(receipt(), [(t, list[Event](several)) for t, several in events])
    assert made.phases == {Phase.TOOL: 4.0, Phase.STARTING: 1.0}
    assert made.calls[0].seconds is None
    assert made.tools["Bash"].unfinished == 1
    assert "never came back" in run_text(made)


def test_everything_there_is_stands_in_text_and_page() -> None:
    made = full_report()
    for document in (run_text(made), run_page(made)):
        for words in (
            "Evidence", "exit code = 3", "Verification", "pytest", "Where the time went", "Tools", "Files", "SHA-256 before", "bbbbbbbbbbbb", "changed",
            "gone", "Cost and tokens", "1,000", "Hooks", "after_run", "failed", "What is missing", "12,345 bytes of stdout", "claim", "contradicted",
            "What it asked", "allow run", "nobody answered",
            made.receipt.digest,
        ):  # fmt: skip
            assert words in document.replace("\\", ""), words


def test_a_receipt_that_was_changed_is_said_to_be() -> None:
    changed = replace(full_report(), receipt=full_receipt().model_copy(update={"cost": 0.0}))
    assert "changed after it was sealed" in run_text(changed)
    assert "changed after it was sealed" in run_page(changed)
    assert "changed after it was sealed" not in run_text(full_report())


class Page(HTMLParser):
    """What a browser would act on."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.names: set[str] = set()
        self.addresses: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.names.add(name)
            if name in {"href", "src", "action", "data", "srcset", "poster"}:
                self.addresses.append(value or "")


OURS = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "section", "footer", "div", "span", "i", "b", "p", "h1", "h2", "h3", "h4", "h5",
    "h6", "ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td", "code", "pre", "details", "summary", "blockquote", "a", "br", "em", "strong", "hr",
    "del", "s",
}  # fmt: skip


@pytest.mark.parametrize("attack", EVERY, ids=range(len(EVERY)))
@pytest.mark.row("threats", "a report of a run whose agent writes markup", "nothing in the page or in the Markdown acts or loads")
def test_nothing_that_an_agent_writes_acts_in_a_report(attack: str) -> None:
    one, attack = full_report(attack), attack.encode("utf-8", "replace").decode()
    tasks = TaskList(
        name=attack[:200].replace("\0", ""),
        cwd="/x",
        tasks=(Task(id="a", text="x", title=attack[:200]), Task(id="b", text="y", needs=("a",))),
    )
    records: list[Record] = [
        Begun(at=0.0, task="a", attempt=1, run_id=one.receipt.run_id),
        Ended(at=1.0, task="a", attempt=1, outcome="failed", summary=attack, text=attack, seconds=1.0),
        Skipped(at=1.0, task="b", because=attack),
        HookTold(at=1.0, text=attack, task="a"),
        Closed(at=1.0, status=ListStatus.FAILED, summary=attack),
    ]
    whole = list_report("abc-1", tasks, records, {one.receipt.run_id: one}, {one.receipt.run_id: one.receipt})
    rendered = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render  # the most trusting reader of Markdown
    documents = [run_page(one), list_page(whole), notebook_html(run_text(one)), rendered(run_text(one)), rendered(list_text(whole))]
    for document in documents:
        page = Page(document)
        assert page.tags <= OURS
        assert not [name for name in page.names if name.startswith("on")]
        assert all(address.startswith(("http://", "https://", "mailto:")) for address in page.addresses)
        for loading in re.findall(
            r"url\(|@import|srcset", re.sub(r"<[^>]*>|[^<]+", lambda match: match[0] if match[0].startswith("<") else "", document)
        ):
            raise AssertionError(loading)
    assert "default-src 'none'" in documents[0]


# --- lists ------------------------------------------------------------------------------------------------------------


def listed(*records: Record) -> tuple[TaskList, list[Record]]:
    tasks = TaskList(
        name="demo",
        cwd="/x",
        tasks=(
            Task(id="a", text="x", kind=TaskKind.SHELL),
            Task(id="b", text="x", kind=TaskKind.SHELL, needs=("a",)),
            Task(id="c", text="x", kind=TaskKind.SHELL, needs=("a",)),
            Task(id="d", text="x", kind=TaskKind.SHELL, needs=("b", "c")),
        ),
    )
    return tasks, list(records)


def done(task: str, begin: float, seconds: float, *, attempt: int = 1, outcome: str = "ok", summary: str = "") -> list[Record]:
    return [
        Begun(at=1000 + begin, task=task, attempt=attempt),
        Ended(at=1000 + begin + seconds, task=task, attempt=attempt, outcome=outcome, seconds=seconds, summary=summary),
    ]


def test_the_critical_path_is_the_chain_of_needs_that_took_longest() -> None:
    tasks, records = listed(*done("a", 0, 1), *done("b", 1, 5), *done("c", 1, 2), *done("d", 6, 1), Closed(at=1007, status=ListStatus.OK))
    made = list_report("abc-1", tasks, records, {}, {})
    assert (made.path, made.path_seconds) == (("a", "b", "d"), 7.0)
    assert (made.wall, made.work) == (7.0, 9.0)
    assert made.next_steps == ()
    assert "Critical path (7.0 s): a → b → d." in list_text(made)
    assert critical_path(TaskList(cwd="/x", tasks=()), {}) == ((), 0)


def test_what_was_tried_again_took_its_time_as_well() -> None:
    again = Waiting(at=1004, task="c", until=1004, why="it failed", cause="retry")
    tasks, records = listed(*done("a", 0, 1), *done("b", 1, 5), *done("c", 1, 3, outcome="failed"), again, *done("c", 4, 4, attempt=2))
    made = list_report("abc-1", tasks, records, {}, {})
    assert made.work == 13.0
    assert (made.path[:2], made.path_seconds) == (("a", "c"), 8.0)
    assert "| 7.0 s |" in next(line for line in list_text(made).splitlines() if line.startswith("| 3 | c |"))


def test_the_critical_path_of_a_long_chain_takes_no_memory_to_speak_of() -> None:
    names = [f"t{number}" for number in range(4000)]
    tasks = TaskList(
        cwd="/x", tasks=tuple(Task(id=name, text="x", needs=(before,) if before else ()) for before, name in pairwise(["", *names]))
    )
    tasks.in_order()  # which it has by then
    seconds = dict.fromkeys(names, 1.0)
    tracemalloc.start()
    try:
        assert critical_path(tasks, seconds) == (tuple(names), 4000.0)
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()


def test_what_failed_why_and_what_to_do_next_is_said() -> None:
    cured = receipt(2, outcome=Outcome(kind=OutcomeKind.AUTH, summary="No login.", cure="Log in with `claude`."))
    tasks, records = listed(
        *done("a", 0, 1),
        Begun(at=1002, task="b", attempt=1, run_id=cured.run_id),
        Ended(at=1003, task="b", attempt=1, outcome="auth", summary="No login.", seconds=1),
        *done("c", 1, 1, outcome="failed", summary="ValueError: no"),
        Skipped(at=1004, task="d", because="it needs b, which did not end well"),
        Closed(at=1004, status=ListStatus.FAILED, summary="1 of 4 tasks ended well"),
    )
    made = list_report("abc-1", tasks, records, {cured.run_id: run_report(cured, ())}, {cured.run_id: cured})
    text = list_text(made)
    assert "- **b** (failed): No login." in text
    assert "- **c** (failed): ValueError: no" in text
    assert "- **d** (skipped): it needs b, which did not end well" in text
    assert "- b: Log in with `claude`." in text
    assert "- c: Look at what it says, mend the cause, and do it again: `cc-executor tasks retry c abc-1`." in text
    assert "`cc-executor tasks run abc-1` goes on from here" in text
    assert list_page(made).count('<details class="run">') == 1


def test_a_report_names_the_bound_that_holds() -> None:
    tasks, records = listed(*done("a", 0, 1))
    bounded = tasks.model_copy(update={"max_cost": 2.0})
    assert r"of \$2.00 " in list_text(list_report("abc-1", bounded, records, {}, {}))
    text = list_text(list_report("abc-1", bounded, [*records, Capped(at=1002, max_cost=9.5)], {}, {}))
    assert r"of \$9.50 " in text
    assert r"of \$2.00 " not in text


def test_a_list_that_goes_on_is_reported_as_far_as_it_is() -> None:
    tasks, records = listed(*done("a", 0, 1), Begun(at=1001, task="b", attempt=1))
    made = list_report("abc-1", tasks, records, {}, {})
    assert [row.state.status.value for row in made.rows] == ["ok", "running", "waiting", "waiting"]
    assert "has not ended" in list_text(made)
    assert list_page(made) == list_page(list_report("abc-1", tasks, records, {}, {}))
