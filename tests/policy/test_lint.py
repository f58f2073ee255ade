"""The lint of prompts: each rule finds its example and leaves what is better alone; few false alarms; nothing is changed but on request."""

from __future__ import annotations

import time

import pytest

from cc_executor.errors import InvalidRequest
from cc_executor.model.tasklist import Task, TaskKind, TaskList
from cc_executor.policy import tokens
from cc_executor.policy.hints import hints, unknown_rules
from cc_executor.policy.lint import EVERY, amended, difference, ids_of, lint, looked_over, report
from cc_executor.policy.rules import RULES, Rule, Severity
from policy.lint_prompts import BAD, ELSEWHERE, GOOD
from support.environments import CHECKOUT


def ids(text: str, **more: object) -> set[str]:
    return {finding.rule.id for finding in lint(text, **more)}  # type: ignore[arg-type] # handed on as they come


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_finds_its_example_and_nothing_in_what_is_better(rule: Rule) -> None:
    assert rule.id in ids(rule.example, is_checked=False)
    assert ids(rule.better) == set()
    assert ids(rule.better, is_checked=False) <= {"unchecked-file"}
    assert rule.id not in ids(rule.example, is_checked=False, off=[rule.id])


@pytest.mark.parametrize(("text", "expected"), BAD)
def test_what_is_wrong_is_found_and_nothing_else(text: str, expected: set[str]) -> None:
    assert ids(text) == expected


@pytest.mark.parametrize("text", GOOD)
def test_what_is_fine_passes_without_a_word(text: str) -> None:
    assert ids(text) == set()


def test_files_to_be_written_are_all_that_is_found_in_fine_prompts_of_which_nothing_is_checked() -> None:
    found = [text for text in GOOD if lint(text, is_checked=False)]
    assert set.union(*(ids(text, is_checked=False) for text in found)) == {"unchecked-file"}
    assert len(found) == 13, "as docs/lint.md says"
    assert not any("save()" in text for text in found), "a function's name is no wish to write a file"


def test_prompts_that_others_have_published_are_rarely_warned_of() -> None:
    warned = {text for text in ELSEWHERE if any(finding.rule.severity is Severity.WARNING for finding in lint(text))}
    hinted = {text for text in ELSEWHERE if ids(text)} - warned
    assert warned == {"Generate report"}
    assert hinted == {"explain the root cause", "summarize what changed", "Write release notes from these commits"}


def test_a_finding_knows_its_place() -> None:
    (finding,) = lint("Rename the package to shop.\n\nLeave tests alone, and ask me before you delete a file.")
    assert (finding.rule.id, finding.line, finding.column, finding.excerpt) == ("asks-back", 3, 24, "ask me")
    assert finding.as_dict()["can_apply"] is True


@pytest.mark.parametrize(
    "text",
    [
        'Rename the label "Help me" in menu.py to "Support".',
        "In `ask me` mode the bot of chat.py must answer within 2 s.",
        "Mend this:\n```\n# try again, as discussed before\nask me\n```\nThe file is bot.py.",
    ],
)
def test_what_is_quoted_is_not_meant(text: str) -> None:
    assert ids(text) == set()


def test_variables_are_told_from_braces() -> None:
    assert ids("Summarise {{ city }} in three sentences.", names={"city"}) == {"unfilled-variable"}
    assert ids("Summarise {{ city }} in three sentences.", names={"town"}) == set()
    assert ids("Take {{ needs.plan.text }} and carry it out in src/.") == set()


def test_a_continued_session_may_refer_back() -> None:
    assert ids("Continue where you stopped in chapter3.md.", resumes=True) == set()


def test_only_named_rules_change_a_prompt_and_what_is_changed_is_shown() -> None:
    text = "Help me write a parser for the logs in logs/. Ask me if a line is odd."
    assert amended(text, []) == (text, ())
    after, applied = amended(text, ["dialogue", "asks-back", "slash-command"])
    assert applied == ("dialogue", "asks-back")
    assert after.startswith("Write a parser for the logs in logs/. Ask me if a line is odd.\n")
    assert difference(text, after).splitlines()[:2] == [f"-{text}", f"+{after.splitlines()[0]}"]
    assert amended(after, ["dialogue"]) == (after, ())
    looked = looked_over(text, show=False)
    assert (looked.prompt, looked.amended, looked.said) == (text, (), "")
    looked = looked_over(text, show=True)
    assert (looked.prompt, looked.amended) == (text, ())
    assert "asks-back" in looked.said


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.amend is not None], ids=lambda rule: rule.id)
def test_the_suggested_text_keeps_every_word_and_is_put_in_once(rule: Rule) -> None:
    after, applied = amended(rule.example, [rule.id])
    assert applied == (rule.id,)
    kept = set(after.lower().replace("`", "").split())
    assert set(rule.example.lower().split()) - kept <= {"help", "me"}
    again, _ = amended(after, [rule.id])
    assert again == after


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Walk me through the parser in parse.py.", "dialogue"),  # who wants which text in its place?
        ("Help me with the parser in parse.py.", "dialogue"),
        (amended("Tidy app.py, and ask me first.", ["asks-back"])[0], "asks-back"),  # it is there already
    ],
)
def test_a_suggestion_is_offered_where_it_changes_something_and_nowhere_else(text: str, rule: str) -> None:
    (finding,) = lint(text)
    assert (finding.rule.id, finding.as_dict()["can_apply"]) == (rule, False)
    assert "--lint-apply" not in report([finding], tokens.count(text))
    looked = looked_over(text, show=False, apply=[rule])
    assert (looked.prompt, looked.amended) == (text, ())
    assert looked.said == f"Lint: {rule} has nothing to put in here; the prompt is sent as it stands."


def test_rules_that_there_are_not_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidRequest, match=r"no lint rule 'vage'; the rules are vague, too-short"):
        lint("x", off=["vage"])
    with pytest.raises(InvalidRequest, match="vague has no text to put in"):
        amended("Fix it", ["vague"])
    assert lint("Fix it", off=[EVERY]) == ()
    assert ids_of(["a,b", " b ,c"]) == ("a", "b", "c")


def test_ten_megabytes_take_no_minute() -> None:
    text = "ask me {{x}} (a) 'b' \"c `d\n" * 370_000
    begun = time.process_time()
    lint(text)
    assert time.process_time() - begun < 4


@pytest.mark.parametrize("word", ["a", "a_", "A", "first ", "write a", "{{ "])
def test_one_word_of_many_letters_takes_no_longer_than_many_words(word: str) -> None:
    begun = time.process_time()
    lint(word * (200_000 // len(word)), is_checked=False)
    assert time.process_time() - begun < 4


def test_what_is_concrete_and_what_is_ordered_is_told_in_the_shortest_text() -> None:
    for text in ("Look at ab.py", "Call f()", "Rename a_b", "Rename aB"):
        assert "few-words" not in {finding.rule.id for finding in lint(text)}, text
    demands = "Read it. Then sort it. Then add it. Then draw it. Finally write it down. And so on and so on, until all is there. " * 2
    assert "one-block" in {finding.rule.id for finding in lint(demands)}
    assert "one-block" not in {finding.rule.id for finding in lint(f"First: {demands} The second time it is different.")}
    assert "one-block" in {finding.rule.id for finding in lint(f"The second time it is different. First: {demands}")}


def test_the_report_counts_and_says_how_a_suggestion_is_put_in() -> None:
    said = report(lint("/review the code in src/app.py"), tokens.count("/review the code in src/app.py"))
    assert said.splitlines()[0] == "Lint: 1 finding; about 13 tokens (8 to 22)."
    assert "--lint-apply slash-command" in said


# --- lists ------------------------------------------------------------------------------------------------------------


def test_a_list_is_looked_over_task_by_task_and_switched_off_as_it_says() -> None:
    tasks = TaskList(
        tasks=(
            Task(id="a", text="Fix it"),
            Task(id="b", kind=TaskKind.SHELL, text="Fix it"),
            Task(id="c", text="Write a haiku into haiku.md."),
            Task(id="d", text="Write a haiku into haiku.md.", options={"expect": "haiku.md"}),
        ),
        cwd="/",
    )
    found = hints(tasks, places={0: "line 3"})
    assert [(hint.task, hint.finding.rule.id) for hint in found] == [("a", "vague"), ("c", "unchecked-file")]
    assert str(found[0]).startswith("tasks[0] 'a' (line 3): warning vague: ")
    assert [hint.task for hint in hints(tasks, off={"": ("vague", "too-short", "few-words"), "c": (EVERY,)})] == []
    assert [problem.place for problem in unknown_rules({"": ("vage",), "c": ("vague",)})] == ["lint_off"]


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_has_every_rule_with_its_words() -> None:
    page = (CHECKOUT / "docs" / "lint.md").read_text(encoding="utf-8")
    for rule in RULES:
        example = f"{rule.example[:20]}…" if len(rule.example) > 80 else rule.example.replace("\n", " ⏎ ")
        assert f"| `{rule.id}` | {rule.severity.value} | {rule.title} | {rule.why} | {rule.suggestion} | {example} |" in page
    *others, last = (f"`{rule.id}`" for rule in RULES if rule.amend is not None)
    assert f"Five rules have a text to put in: {', '.join(others)} and {last}." in page
    for name, count in (("ordinary prompts", len(GOOD)), ("prompts that were", len(ELSEWHERE))):
        assert f"{count} {name}" in " ".join(page.split())
    assert f"{len(BAD)} bad ones" in page
