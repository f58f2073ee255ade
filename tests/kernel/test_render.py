from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from cc_executor.kernel.render import BUNDLE_BYTES, RECEIPT_MIME, static_bundle
from cc_executor.kernel.terminal import TerminalView
from cc_executor.model.event import (
    ApiRetried,
    Event,
    Exited,
    MessageStarted,
    StderrWritten,
    TextWritten,
    ThinkingWritten,
    ToolCalled,
    ToolReturned,
)
from cc_executor.model.markdown import markdown_html
from cc_executor.model.outcome import Outcome, OutcomeKind
from cc_executor.model.receipt import Check, Exit, FileChange, Receipt, Standing, Times, TokenUsage
from cc_executor.model.transcript import Transcript
from cc_executor.model.words import REHEARSAL
from kernel.attacks import PAYLOADS

RUN = "0199e8d2b1c07a3f5e6d7c8b9a"


def receipt(**changes: Any) -> Receipt:
    started = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    fields: dict[str, Any] = {
        "run_id": RUN,
        "request_digest": "0" * 64,
        "agent": "claude",
        "model": "claude-opus-4-8",
        "prompt_sha256": "1" * 64,
        "times": Times(started=started, ended=started, elapsed=12.34, active=12.34),
        "outcome": Outcome(kind=OutcomeKind.OK, summary="The agent finished."),
        "exit": Exit(code=0),
        "usage": TokenUsage(input_tokens=200, output_tokens=532, cache_read_tokens=14_000, cache_creation_tokens=4),
        "cost": 0.01234,
        "text": "It is **done**.\n",
    }
    return Receipt(**(fields | changes)).sealed()


def transcript(*events: Event) -> Transcript:
    page = Transcript()
    page.feed(events)
    return page


def size(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


RUN_EVENTS: tuple[Event, ...] = (
    ThinkingWritten(block="a:0", text="Where are the tests?", whole=True),
    TextWritten(block="a:1", text="I look first.", whole=True),
    ToolCalled(tool_id="t1", name="Bash", input=json.dumps({"command": "ls tests"})),
    ToolReturned(tool_id="t1", text="a.py\nb.py"),
    ToolCalled(tool_id="t2", name="Edit", input=json.dumps({"file_path": "/x/a.py", "old_string": "1", "new_string": "2"})),
    ToolReturned(tool_id="t2", text="no such file", is_error=True),
    ApiRetried(attempt=1, max_attempts=10, delay=2, status=529),
    TextWritten(block="b:0", text="It is **done**.", whole=True),
)


# --- text/plain -------------------------------------------------------------------------------------------------------


def test_plain_text_of_an_ok_run() -> None:
    data, metadata = static_bundle(receipt(), transcript(*RUN_EVENTS))
    assert data["text/plain"] == (
        f"It is **done**.\n\nok · 12 s · $0.0123 · 14,204 in / 532 out tokens · claude-opus-4-8 · claimed · run {RUN}"
    )
    assert metadata == {"cc_executor": {"run_id": RUN, "digest": receipt().digest, "status": "ok"}}


def test_what_stands_beside_a_success_is_told_in_text_and_card() -> None:
    beside = "The run ended well; 1 command that it had left running was ended."
    bundle, _ = static_bundle(
        receipt(outcome=Outcome(kind=OutcomeKind.OK, summary=beside, evidence=("exit code = 0",))), transcript(*RUN_EVENTS)
    )
    assert f"\n  {beside}" in str(bundle["text/plain"])
    assert f"<b>{beside}</b>" in str(bundle["text/html"])
    assert "evidence" not in str(bundle["text/plain"])


def test_plain_text_of_a_failed_run_has_evidence_and_cure() -> None:
    outcome = Outcome(
        kind=OutcomeKind.AUTH, summary="The API refused the key.", evidence=("result.api_error_status = 401",), cure="Run `claude login`."
    )
    failed = receipt(
        outcome=outcome, text="", cost=None, usage=TokenUsage(), standing=Standing.CONTRADICTED,
        checks=(Check(what="pytest -q", passed=False, detail="exit code 1"), Check(what="a.py", passed=None)),
    )  # fmt: skip
    assert static_bundle(failed, transcript())[0]["text/plain"] == (
        f"auth · 12 s · cost not reported · claude-opus-4-8 · contradicted · run {RUN}\n"
        "  The API refused the key.\n"
        "  evidence: result.api_error_status = 401\n"
        "  cure: Run `claude login`.\n"
        "  ✗ pytest -q: exit code 1\n"
        "  ? a.py"
    )


def test_plain_text_of_a_rehearsal_says_so() -> None:
    text = static_bundle(receipt(rehearsed="hello", cost=0.5), transcript())[0]["text/plain"]
    assert text == (
        f"It is **done**.\n\n{REHEARSAL}\nok · 12 s · nothing spent · 14,204 in / 532 out tokens · claude-opus-4-8 · claimed · run {RUN}"
    )


def test_plain_text_holds_no_terminal_control() -> None:
    evil = "\x1b]52;c;cm0gLXJm\x07\x1b[2Jhi\x9b31m"
    failed = receipt(text=evil, model=evil, outcome=Outcome(kind=OutcomeKind.FAILED, summary=evil, evidence=(evil,), cure=evil))
    text = str(static_bundle(failed, transcript())[0]["text/plain"])
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)


def test_a_paused_run_says_how_long_it_stood_still() -> None:
    times = Times(started=datetime(2026, 1, 1, tzinfo=UTC), ended=datetime(2026, 1, 1, tzinfo=UTC), elapsed=200, active=140, paused=60)
    assert "3 min 20 s (1 min 0 s paused)" in str(static_bundle(receipt(times=times))[0]["text/plain"])


# --- text/html --------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]
        if tag not in {"br", "hr"}:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


ALLOWED = {
    "div", "span", "b", "i", "details", "summary", "pre", "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol",
    "p", "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip


def html_of(sealed: Receipt, page: Transcript | None = None) -> Page:
    return Page(str(static_bundle(sealed, page)[0]["text/html"]))


def test_the_card_tells_the_story() -> None:
    page = html_of(receipt(files=(FileChange(path="a.py", before="0", after="1", size=12),)), transcript(*RUN_EVENTS))
    for words in ("✓ ok", "claimed", "12 s", "$0.0123", "claude-opus-4-8", RUN, "2 tool calls", "Bash", "ls tests", "b.py", "Edit", "- 1", "+ 2",
                  "no such file", "Thinking", "Where are the tests?", "I look first.", "attempt 1 of 10", "1 file", "a.py  changed, 12 bytes"):  # fmt: skip
        assert words in page.text, words
    assert "strong" in page.tags
    assert page.text.count("It is ") == 1, "the final text is no step as well"
    assert page.tags <= ALLOWED
    assert page.attributes <= {"class", "style", "title", "href", "rel", "target", "start"}


def test_the_card_of_a_run_with_more_tool_calls_than_a_page_holds_does_not_say_that_these_were_all() -> None:
    page = Transcript()
    for n in range(10_000):
        page.feed([ToolCalled(tool_id=f"t{n}", name="Bash", input="{}"), ToolReturned(tool_id=f"t{n}", text="x")])
    shown = html_of(receipt(), page).text
    assert f"the last {len(page.items):,} tool calls" in shown
    assert len(page.items) < 10_000


def test_the_final_text_is_no_step_even_in_many_parts() -> None:
    text = "".join(f"Line {n} of the answer.\n\n" for n in range(200))
    page = html_of(receipt(text=text), transcript(TextWritten(block="a:0", text=text, whole=True)))
    assert page.text.count("Line 0 of the answer.") == 1
    assert "What happened" not in page.text


@pytest.mark.parametrize("kind", list(OutcomeKind))
def test_every_outcome_has_its_badge(kind: OutcomeKind) -> None:
    page = html_of(receipt(outcome=Outcome(kind=kind, summary="Why.", evidence=("fact = 1",), cure="Do that.")))
    assert kind.value.replace("_", " ") in page.text
    assert ("fact = 1" in page.text) is (kind is not OutcomeKind.OK)


@pytest.mark.parametrize("standing", list(Standing))
def test_every_standing_has_its_badge(standing: Standing) -> None:
    assert standing.value in html_of(receipt(standing=standing)).text


def test_a_rehearsal_is_marked() -> None:
    page = html_of(receipt(rehearsed="hello"))
    assert REHEARSAL in page.text
    assert "nothing spent" in page.text


def test_the_output_of_a_command_is_not_taken_for_markdown() -> None:
    page = html_of(receipt(agent="shell", text="*not* emphasised\n# no heading", cost=None, usage=TokenUsage()))
    assert "*not* emphasised\n# no heading" in page.text
    assert "cost" not in page.text


@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_of_an_agent_gets_into_the_markup(payload: str) -> None:
    events: tuple[Event, ...] = (
        TextWritten(block="a:0", text=payload, whole=True),
        ThinkingWritten(block="a:1", text=payload, whole=True),
        ToolCalled(tool_id="t", name=payload, input=json.dumps({payload: payload})),
        ToolReturned(tool_id="t", text=payload),
        StderrWritten(text=payload),
        TextWritten(block="out", text=payload),
    )
    sealed = receipt(
        text=payload, model=payload, rehearsed=payload, checks=(Check(what=payload, passed=True, detail=payload),), files=(FileChange(path=payload, after="1"),),
        outcome=Outcome(kind=OutcomeKind.FAILED, summary=payload, evidence=(payload,), cure=payload),
    )  # fmt: skip
    page = html_of(sealed, transcript(*events))
    assert page.tags <= ALLOWED
    assert page.attributes <= {"class", "style", "title", "href", "rel", "target", "start"}
    assert all(link.lower().startswith(("http://", "https://", "mailto:")) for link in page.links)


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_a_usual_bundle_is_small() -> None:
    page = Transcript()
    for turn in range(200):
        page.feed(
            [
                TextWritten(block=f"{turn}:0", text=f"Step {turn}: " + "words and more words. " * 40, whole=True),
                ToolCalled(tool_id=f"t{turn}", name="Bash", input=json.dumps({"command": f"pytest tests/test_{turn}.py"})),
                ToolReturned(tool_id=f"t{turn}", text="\n".join(f"tests/test_{turn}.py::test_{n} PASSED" for n in range(300))),
            ]
        )
    data, metadata = static_bundle(receipt(text="An answer. " * 500), page)
    assert size([data, metadata]) <= 64 * 1024
    html = str(data["text/html"])
    assert "Step 199" in html
    assert "lines are in the journal only" in html


HUGE = [
    "x" * 32_000,
    "日本語" * 10_000,
    "&<>\"'" * 6_000,
    "\n" * 32_000,
    "|a" * 60 + "\n" + "|-" * 60 + "\n" + ("|" * 61 + "\n") * 250,
    "\u2028\U0001f600" * 9_000,
    "> " * 10_000,
    "- a\n" * 8_000,
]


@pytest.mark.parametrize("text", HUGE)
@pytest.mark.parametrize("agent", ["claude", "shell"])
def test_a_bundle_is_bounded_whatever_it_holds(text: str, agent: str) -> None:
    events: list[Event] = [TextWritten(block=f"{n}:0", text=f"{n} {text}", whole=True) for n in range(5)]
    events += [ToolReturned(tool_id=str(n), text=text) for n in range(100)]
    files = tuple(FileChange(path=text[:400], before="0" * 64, after="1" * 64, size=1) for _ in range(200))
    checks = tuple(Check(what=text[:2000], passed=False, detail=text[:2000]) for _ in range(30))
    outcome = Outcome(kind=OutcomeKind.FAILED, summary=text[:3000], evidence=(text[:3000],) * 30, cure=text[:3000])
    sealed = receipt(agent=agent, text=text, files=files, checks=checks, outcome=outcome, data={"x": text}, rehearsed="x")
    data, metadata = static_bundle(sealed, transcript(*events))
    assert size([data, metadata]) <= BUNDLE_BYTES
    Page(str(data["text/html"]))


def test_a_receipt_is_in_the_bundle_whole() -> None:
    sealed = receipt()
    assert Receipt.model_validate(static_bundle(sealed)[0][RECEIPT_MIME]) == sealed


def test_a_receipt_without_room_is_named() -> None:
    sealed = receipt(data={"rows": ["x" * 1000] * 500})
    kept = static_bundle(sealed)[0][RECEIPT_MIME]
    assert isinstance(kept, dict)
    assert kept["run_id"] == sealed.run_id
    assert kept["digest"] == sealed.digest
    assert f"%cc receipt {RUN}" in kept["left_out"]


# --- Markdown ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "html"),
    [
        ("**a** `b`", "<p><strong>a</strong> <code>b</code></p>\n"),
        (
            "[t](https://e.org/?a=1&b=2)",
            '<p><a href="https://e.org/?a=1&amp;b=2">t</a></p>\n',
        ),
        ("[t](/api/shutdown)", "<p><a>t</a></p>\n"),
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>\n"),
        ("```python\nx < 1\n```", "<pre>x &lt; 1\n</pre>\n"),
        ("|a|b|\n|-|:-:|\n|1|2|", None),
        ("line 1\nline 2", "<p>line 1<br>\nline 2</p>\n"),
        (
            "![secret](https://e.org/p.png)",
            '<p><a href="https://e.org/p.png">image: secret</a></p>\n',
        ),
    ],
)
def test_markdown(source: str, html: str | None) -> None:
    rendered = markdown_html(source)
    assert html is None or re.sub(r' rel="noopener noreferrer nofollow"| target="_blank"', "", rendered) == html
    assert rendered.count("<a ") == rendered.count(' target="_blank"') == rendered.count(' rel="noopener noreferrer nofollow"')
    assert not {"style", "class", "id"} & Page(rendered).attributes


@pytest.mark.parametrize(
    "source", ["[" * 16_384, "![[" * 5_000, "*a " * 5_000, "> " * 8_000, "`" * 16_384, "- " * 8_000 + "x", "<a:" * 5_000]
)
def test_hostile_markdown_takes_no_time(source: str) -> None:
    Page(markdown_html(source))  # 0.2 s at most; a quadratic parser would trip the timeout of the whole test run


# --- the terminal -----------------------------------------------------------------------------------------------------


def written(*batches: list[Event]) -> str:
    stream = io.StringIO()
    view, page = TerminalView(stream), Transcript()
    for batch in batches:
        page.feed(batch)
        view.update(page)
    view.close(receipt())
    return stream.getvalue()


END = f"ok · 12 s · $0.0123 · 14,204 in / 532 out tokens · claude-opus-4-8 · claimed · run {RUN}\n"


def test_a_terminal_shows_text_as_it_comes_and_tools_on_one_line() -> None:
    assert written(
        [TextWritten(block="a:0", text="I lo")],
        [TextWritten(block="a:0", text="ok.")],
        [TextWritten(block="a:0", text="I look.", whole=True), ToolCalled(tool_id="t", name="Bash", whole=False)],
        [ToolCalled(tool_id="t", name="Bash", input='{"command": "echo hi"}')],
        [ToolReturned(tool_id="t", text="hi")],
        [ApiRetried(attempt=1, max_attempts=10, delay=2, status=529)],
        [ApiRetried(attempt=2, max_attempts=10, delay=4, status=529)],
        [ThinkingWritten(block="b:0", text="hm"), ThinkingWritten(block="b:0", text="hmm", whole=True)],
        [ToolCalled(tool_id="u", name="Read", input='{"file_path": "/a"}'), ToolReturned(tool_id="u", text="gone", is_error=True)],
        [TextWritten(block="b:1", text="Done.", whole=True)],
    ) == (
        "I look.\n"
        "⏺ Bash(echo hi)\n"
        "  ⎿ hi\n"
        "• The API answered 529; attempt 1 of 10 in 2.0 s\n"
        "• The API answered 529; attempt 2 of 10 in 4.0 s\n"
        "✻ Thinking…\n"
        "⏺ Read(/a)\n"
        "  ⎿ error: gone\n"
        "Done.\n" + END
    )


def test_a_terminal_says_when_text_is_taken_back() -> None:
    assert written(
        [MessageStarted(message_id="a"), TextWritten(block="a:0", text="Half an")],
        [MessageStarted(message_id="b"), TextWritten(block="b:0", text="A whole answer", whole=True)],
    ) == ("Half an\n  (what was begun above is void; it is written anew)\nA whole answer\n" + END)


def test_a_terminal_shows_only_the_last_state_of_a_progress_bar() -> None:
    assert written(
        [TextWritten(block="stdout", text="start\n10%")],
        [TextWritten(block="stdout", text="\r50%")],
        [TextWritten(block="stdout", text="\r100%"), StderrWritten(text="warning")],
        [Exited(code=2)],
    ) == ("start\n100%\nwarning\n• Exit code 2\n" + END)


@pytest.mark.row("threats", "terminal control", "no escape sequence of an agent reaches a terminal")
def test_a_terminal_gets_no_control_sequences_from_the_agent() -> None:
    text = written(
        [TextWritten(block="a:0", text="\x1b]52;c;cm0=\x07hi\x1b[2J"), StderrWritten(text="\x1b[31mred")],
        [ToolCalled(tool_id="t", name="B\x1b[1mash", input='{"command": "echo \\u001b[5m"}'), ToolReturned(tool_id="t", text="\x1b[0mok")],
    )
    assert "\x1b" not in text
    assert "\x07" not in text


def test_a_terminal_that_is_too_slow_says_what_it_left_out() -> None:
    flood = "".join(f"line {n}\n" for n in range(100_000))
    text = written([TextWritten(block="stdout", text="first\n")], [TextWritten(block="stdout", text=flood)])
    assert text.startswith("first\n")
    assert "lines left out here; the journal has them" in text
    assert "line 99999\n" in text
    assert text.count("\n") < 6000
