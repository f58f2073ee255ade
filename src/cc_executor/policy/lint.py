"""What may be wrong with a prompt, said before anything is spent. A text in, findings out; it changes nothing by itself. Pure.

`amended` writes the suggested text of rules that somebody has named; nobody else calls it. The rules are in `cc_executor.policy.rules`.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cc_executor.errors import InvalidRequest
from cc_executor.model.looked import Looked
from cc_executor.policy import tokens
from cc_executor.policy.rules import RULES, Prompt, Rule

EXCERPT: Final = 60  # characters
EVERY: Final = "all"  # switches every rule off
BY_ID: Final = {rule.id: rule for rule in RULES}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule has found in a text. `line` and `column` count from 1; `can_apply`: the rule has a text to put in here."""

    rule: Rule
    line: int
    column: int
    excerpt: str
    detail: str = ""
    can_apply: bool = False

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "rule": self.rule.id,
            "severity": self.rule.severity.value,
            "line": self.line,
            "column": self.column,
            "excerpt": self.excerpt,
            "message": self.detail or self.rule.title,
            "why": self.rule.why,
            "suggestion": self.rule.suggestion,
            "can_apply": self.can_apply,
        }


def lint(
    text: str,
    *,
    model: str | None = None,
    is_checked: bool | None = None,
    names: Collection[str] | None = None,
    resumes: bool = False,
    off: Iterable[str] = (),
) -> tuple[Finding, ...]:
    """What may be wrong with a prompt, in the order of the text.

    Parameters
    ----------
    text : str
    model : str, optional
        For the size of its context.
    is_checked : bool, optional
        Whether `verify` or `expect` is given; None: not known.
    names : collection of str, optional
        Variables that ``{{name}}`` could mean; None: any.
    resumes : bool
        Whether a session is continued.
    off : iterable of str
        Ids of rules that are not asked, or `EVERY`.

    Raises
    ------
    InvalidRequest
        There is no such rule.
    """
    silent = known(off)
    if not text.strip():
        return ()
    prompt = Prompt(text, model=model, is_checked=is_checked, names=names, resumes=resumes)
    spans = {rule.id: list(rule.find(prompt)) for rule in RULES if rule.id not in silent}
    found = [
        (span, BY_ID[name])
        for name, places in spans.items()
        for span in places
        if not any(spans.get(other) for other in BY_ID[name].unless)
    ]
    can = {rule.id for rule in RULES if spans.get(rule.id) and rule.amend is not None and rule.amend(text) != text}
    return tuple(
        _finding(prompt, span, rule, can_apply=rule.id in can) for span, rule in sorted(found, key=lambda item: (item[0], item[1].id))
    )


def _finding(prompt: Prompt, span: tuple[int, int], rule: Rule, *, can_apply: bool) -> Finding:
    start, end = span
    line = prompt.text.count("\n", 0, start) + 1
    column = start - (prompt.text.rfind("\n", 0, start) + 1) + 1
    excerpt = " ".join(prompt.text[start : min(end, start + EXCERPT)].split())
    detail = tokens.tight(prompt.text, prompt.model) if rule.id == "context-size" else None
    return Finding(rule, line, column, excerpt, detail or "", can_apply)


def known(ids: Iterable[str]) -> frozenset[str]:
    """The ids of rules, with `EVERY` as all of them. Raises `InvalidRequest` for one that there is not."""
    wanted = frozenset(ids)
    if unknown := sorted(wanted - BY_ID.keys() - {EVERY}):
        raise InvalidRequest(f"There is no lint rule {unknown[0]!r}; the rules are {', '.join(BY_ID)}.")
    return frozenset(BY_ID) if EVERY in wanted else wanted


def ids_of(words: str | Iterable[str] | None) -> tuple[str, ...]:
    """Ids out of what people write: ``"vague,too-short"``, several of these, or nothing."""
    texts = (words,) if isinstance(words, str) else tuple(words or ())
    return tuple(dict.fromkeys(part.strip() for text in texts for part in text.split(",") if part.strip()))


def amended(text: str, ids: Sequence[str], *, model: str | None = None) -> tuple[str, tuple[str, ...]]:
    """`text` as the named rules suggest it, and the ids of those that have changed something. A rule that finds nothing changes nothing.

    Raises
    ------
    InvalidRequest
        There is no such rule, or it has no text to suggest: only the author knows what was meant.
    """
    known(ids)
    applied: list[str] = []
    for name in ids:
        rule = BY_ID.get(name)
        if rule is None or rule.amend is None:
            can = ", ".join(rule.id for rule in RULES if rule.amend is not None)
            raise InvalidRequest(f"The lint rule {name} has no text to put in; its suggestion is for you to carry out. {can} have.")
        if not list(rule.find(Prompt(text, model=model))):  # also where another rule says it better: somebody has named this one
            continue
        before, text = text, rule.amend(text)
        if text != before:
            applied.append(name)
    return text, tuple(applied)


def difference(before: str, after: str) -> str:
    """What was changed, as a unified diff without its head."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=1)
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def report(findings: Sequence[Finding], counted: tokens.Count) -> str:
    """The findings as people read them, in a cell and in a terminal."""
    return "\n".join(_lines(findings, counted))


def _lines(findings: Sequence[Finding], counted: tokens.Count) -> Iterator[str]:
    said = "nothing found" if not findings else f"{len(findings)} finding{'s' if len(findings) != 1 else ''}"
    yield f"Lint: {said}; {counted}."
    for finding in findings:
        excerpt = f" ({finding.excerpt})" if finding.excerpt else ""
        place = f"{finding.line}:{finding.column}"
        yield f"{place:<6} {finding.rule.severity.value:<8} {finding.rule.id}: {finding.detail or f'The prompt {finding.rule.title}'}{excerpt}"
        applied = f" (--lint-apply {finding.rule.id} does it)" if finding.can_apply else ""
        yield f"       → {finding.rule.suggestion}{applied}"


def looked_over(
    prompt: str,
    *,
    show: bool,
    apply: Iterable[str] = (),
    off: Iterable[str] = (),
    model: str | None = None,
    is_checked: bool | None = None,
    names: Collection[str] | None = None,
    resumes: bool = False,
) -> Looked:
    """What comes before a run: the texts of the rules that somebody has named are put in, and what is found is said.

    Without `show` only that is said which may cost a run for nothing: a prompt that the model may not be able to take.

    Raises
    ------
    InvalidRequest
        There is no such rule, or it has no text to put in.
    """
    off, wanted = known(off), tuple(apply)
    said: list[str] = []
    after, applied = amended(prompt, wanted, model=model) if wanted else (prompt, ())
    if applied:
        said.append(f"The prompt is sent as {', '.join(applied)} suggest{'s' if len(applied) == 1 else ''}:\n{difference(prompt, after)}")
    elif wanted:
        said.append(
            f"Lint: {', '.join(wanted)} {'has' if len(wanted) == 1 else 'have'} nothing to put in here; the prompt is sent as it stands."
        )
    if show:
        found = lint(after, model=model, is_checked=is_checked, names=names, resumes=resumes, off=off)
        said.append(report(found, tokens.count(after, model)))
    elif "context-size" not in off and (problem := tokens.tight(after, model)):
        said.append(f"This prompt may be more than the model can take. {problem}")
    return Looked(after, applied, "\n".join(said))
