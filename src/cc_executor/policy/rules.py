"""The rules by which a prompt is looked over: what each looks for, why, and what it suggests. Data, and a text in, places out. Pure.

Each is a doubt, not a verdict. Code, quotations and pasted blocks are not looked at for words. `cc_executor.policy.lint` asks them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Final

from cc_executor.policy import tokens

SHORT: Final = 3  # words
FEW: Final = 5  # words
VAGUE_CHARS: Final = 50
OPEN_CHARS: Final = 100
BLOCK_CHARS: Final = 200
SENTENCES: Final = 4  # demands in one block, above which nobody sees whether all are met
TASKS: Final = 2  # lines that begin with "Task 1:"
STEPS: Final = 6  # numbered lines
LOOKED_AT: Final = 50_000  # characters; what follows is material, and no regular expression should take a second


class Severity(StrEnum):
    """How sure a rule is. Neither stops a run."""

    WARNING = "warning"  # most likely not what was meant
    HINT = "hint"  # would be clearer otherwise


@dataclass(frozen=True)
class Prompt:
    """A text, and what the rules ask about it.

    Attributes
    ----------
    model : str or None
        For the size of its context.
    is_checked : bool or None
        Whether something outside the agent looks at the result (`verify`, `expect`); None: not known.
    names : collection of str or None
        Variables that ``{{name}}`` could mean; None: not known.
    resumes : bool
        Whether a session is continued, whose past the agent knows.
    """

    text: str
    model: str | None = None
    is_checked: bool | None = None
    names: Collection[str] | None = None
    resumes: bool = False

    @cached_property
    def prose(self) -> str:
        """The beginning of the text with code and quotations blanked, each character at its place."""
        return _QUOTED.sub(lambda match: re.sub(r"\S", _BLANK, match.group()), self.text[:LOOKED_AT])

    @cached_property
    def words(self) -> int:
        """Words; of scripts without spaces, characters."""
        return len(_WORD.findall(self.text[:LOOKED_AT]))

    @cached_property
    def is_concrete(self) -> bool:
        """Whether it names a file, a function, a number, a message, an address: something that is there."""
        return _CONCRETE.search(self.prose) is not None or len(self.text) > LOOKED_AT


Spans = Iterable[tuple[int, int]]

_BLANK: Final = "\u25aa"
_QUOTED: Final = re.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`|\"[^\"\n]{1,300}\"|\u201c[^\u201d\n]{1,300}\u201d|(?<![\w])'[^'\n]{1,300}'(?![\w])",
    re.DOTALL,
)
_WORD: Final = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+(?:['\u2019-][^\W_]+)*")
_CONCRETE: Final = re.compile(
    rf"{_BLANK}|\d|\w{{2}}\.[a-z]{{1,5}}\b|(?<!\w)[.~]?/\w|\w\(\)|https?:|[a-z]_[a-z]|[a-z][A-Z]|(?<!^)(?<![.!?]\s)\b[A-Z][A-Za-z]+\b"
)  # the last: a name that stands within a sentence. Nothing else is longer than it needs to be: of a word of 50,000 letters each would be tried at every one


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule.

    Attributes
    ----------
    id : str
    title : str
        What is found, in one short sentence.
    why : str
        Why that matters to a run.
    suggestion : str
        What to write instead.
    example, better : str
        A prompt in which it finds something, and one in which it does not.
    find : callable
        A `Prompt` in, the places (start, end) out.
    amend : callable or None
        A text in, the suggested text out; None: only its author knows what was meant.
    unless : tuple of str
        Rules that say it better: if one of them has found something, this one is silent.
    """

    id: str
    severity: Severity
    title: str
    why: str
    suggestion: str
    example: str
    better: str
    find: Callable[[Prompt], Spans]
    amend: Callable[[str], str] | None = None
    unless: tuple[str, ...] = ()


# --- what the rules look for ------------------------------------------------------------------------------------------


def _matches(pattern: re.Pattern[str], prompt: Prompt) -> Spans:
    return [match.span() for match in pattern.finditer(prompt.prose)]


def _first(prompt: Prompt) -> Spans:
    """The first line."""
    start = len(prompt.text) - len(prompt.text.lstrip())
    end = prompt.text.find("\n", start)
    return [(start, end if end >= 0 else len(prompt.text))]


_VAGUE: Final = re.compile(
    r"\b(?:fix (?:the|this|that) (?:bug|issue|problem|error)|(?:explain|fix|improve|refactor|optimi[sz]e|clean up|finish|simplify) (?:it|this|that)"
    r"|make (?:it|this) (?:better|work|faster|nicer)|do something (?:with|about)|help me|guide me)\b(?!\s+\w+ing\b)",
    re.IGNORECASE,
)


def _vague(prompt: Prompt) -> Spans:
    is_short = len(prompt.text.strip()) < VAGUE_CHARS
    return _matches(_VAGUE, prompt) if is_short and not prompt.is_concrete else ()


def _too_short(prompt: Prompt) -> Spans:
    return _first(prompt) if prompt.words < SHORT and not prompt.is_concrete else ()


_THERE: Final = re.compile(
    r"\b(?:project|repository|repo|code ?base|code|tests?|suite|readme|changelog|diff|branch|commits?|notebook|folder|directory|errors?|warnings?|linter)\b",
    re.IGNORECASE,
)


def _few_words(prompt: Prompt) -> Spans:
    return _first(prompt) if prompt.words < FEW and not prompt.is_concrete and not _THERE.search(prompt.prose) else ()


_ASKS: Final = re.compile(
    r"\b(?:ask me|check (?:back )?with me|wait for (?:my|me)\b|let me know (?:before|whether|if)|(?:get|wait for) my (?:approval|confirmation|ok))\b",
    re.IGNORECASE,
)
_DECIDE: Final = "Decide by yourself what is not said here, and name your decisions at the end."
_DIALOGUE: Final = re.compile(r"\b(?:guide me|help me|walk me through)\b", re.IGNORECASE)
_HELP: Final = re.compile(r"\A\s*(?:please\s+)?(?:can you\s+)?help me\s+(?:to\s+)?(?P<verb>(?!with\b|in\b|on\b)[a-z]+)", re.IGNORECASE)


def _appended(text: str, sentence: str) -> str:
    return text if sentence in text else f"{text.rstrip()}\n{sentence}"


def _without_help(text: str) -> str:
    match = _HELP.match(text)
    return f"{match['verb'].capitalize()}{text[match.end() :]}" if match else text


_MAKES: Final = re.compile(r"\A\s*(?P<verb>write|create|build|make|generate|implement|design|develop)\b", re.IGNORECASE)
_RESULT: Final = "Write the result to a file in the current folder, and name the file at the end."
_PLACE: Final = re.compile(
    r"\b(?:to|into|in|as|for) (?:a|the|this|that|our|my|each|every) \w+|\bsuch that\b|\bso that\b|\bwhich\b|\bwords?\b|\blines?\b|\bsentences?\b",
    re.IGNORECASE,
)


def _open_command(prompt: Prompt) -> Spans:
    if len(prompt.text.strip()) >= OPEN_CHARS or prompt.is_concrete or _PLACE.search(prompt.prose):
        return ()
    return [match.span("verb") for match in [_MAKES.match(prompt.prose)] if match]


_SENTENCE: Final = re.compile(r"(?<=[.!?;])\s+(?=[A-Z])")
_SEQUENCE: Final = re.compile(r"\b(?:then|after that|afterwards|next|finally|also|in addition|and also)\b", re.IGNORECASE)
_ORDERED: Final = re.compile(r"step by step|\(\d\)|\b\d[.)]\s", re.IGNORECASE)
_FIRST: Final = re.compile(r"\bfirst(?:ly)?\b", re.IGNORECASE)
_SECOND: Final = re.compile(r"\bsecond", re.IGNORECASE)


def _is_ordered(text: str) -> bool:
    first = _FIRST.search(text)
    return _ORDERED.search(text) is not None or (first is not None and _SECOND.search(text, first.end()) is not None)


def _one_block(prompt: Prompt) -> Spans:
    text = prompt.text.strip()
    if len(text) <= BLOCK_CHARS or "\n" in text or _is_ordered(text):
        return ()
    steps = len(_SEQUENCE.findall(prompt.prose)) + 1
    return _first(prompt) if max(len(_SENTENCE.split(text)), steps) > SENTENCES else ()


def _numbered(text: str) -> str:
    parts = _SENTENCE.split(text.strip())
    if len(parts) == 1 or "\n" in text.strip():
        return text
    return "\n".join(f"{number}. {part}" for number, part in enumerate(parts, 1))


_TASK_LINE: Final = re.compile(r"(?im)^\s{0,3}(?:#{1,6}\s+|[-*+]\s+)?(?:\*\*)?task\s+\d+\b")
_STEP_LINE: Final = re.compile(r"(?m)^\s{0,3}\d+[.)]\s+\S")


def _several_tasks(prompt: Prompt) -> Spans:
    for pattern, count in ((_TASK_LINE, TASKS), (_STEP_LINE, STEPS)):
        found = list(_matches(pattern, prompt))
        if len(found) >= count:
            return found[:1]
    return ()


_BACK: Final = re.compile(
    r"\b(?:as (?:we )?(?:discussed|agreed|said)(?: before| earlier)?|(?:like|as|same as|than) (?:last time|before)(?=[\s.,;:!?]*(?:$|[.,;:!?\n]))"
    r"|(?:our|your|the) (?:previous|last|earlier) (?:answer|prompt|cell|conversation|chat|session|reply|response)"
    r"|(?:what|which|that) you (?:just )?(?:said|wrote|did|made|found|suggested)(?: before| earlier| above)?"
    r"|(?:continue|pick up|go on) where (?:you|we) )",
    re.IGNORECASE | re.MULTILINE,
)
_AGAIN: Final = re.compile(
    r"\A\s*(?:please )?(?:continue|try again|keep going|go on|same again|do it again|one more time)\b(?=\s*(?:[.,!;:]|\Z))", re.IGNORECASE
)


def _refers_back(prompt: Prompt) -> Spans:
    if prompt.resumes or "{{" in prompt.text:
        return ()
    return [*_matches(_AGAIN, prompt), *_matches(_BACK, prompt)]


_SLASH: Final = re.compile(r"\A\s*(?P<name>/[A-Za-z][\w:-]*)(?=\s|\Z)")


def _slash(prompt: Prompt) -> Spans:
    return [match.span("name") for match in [_SLASH.match(prompt.text)] if match]


def _no_slash(text: str) -> str:
    return _SLASH.sub(lambda match: match.group().replace(match["name"], f"`{match['name']}`"), text)


_VARIABLE: Final = re.compile(r"\{\{\s*(?P<name>[A-Za-z_]\w*)\s*\}\}")
_TEMPLATES: Final = re.compile(r"template|jinja|mustache|handlebars|liquid|\bvue\b|cookiecutter|\bhelm\b|angular", re.IGNORECASE)


def _variables(prompt: Prompt) -> Spans:
    if _TEMPLATES.search(prompt.text[:LOOKED_AT]):
        return ()
    return [match.span() for match in _VARIABLE.finditer(prompt.prose) if prompt.names is None or match["name"] in prompt.names]


_WRITES: Final = re.compile(
    r"(?i:\b(?:write|save|put|store|export|create|generate|add|produce)\b(?!\())[^.;\n]{0,80}?[\s`'\"](?P<name>[\w~/-][\w./~-]*\.[A-Za-z][A-Za-z0-9]{0,5})\b(?!\()"
)


def _unchecked(prompt: Prompt) -> Spans:
    if prompt.is_checked is not False:
        return ()
    return [match.span("name") for match in _WRITES.finditer(prompt.text[:LOOKED_AT])][:1]


def _size(prompt: Prompt) -> Spans:
    return [(0, 0)] if tokens.tight(prompt.text, prompt.model) else ()


# --- the rules --------------------------------------------------------------------------------------------------------

RULES: Final = (
    Rule(
        id="vague",
        severity=Severity.WARNING,
        title="says neither what is meant nor where it is",
        why="A run begins with an empty memory: it does not know what `this` or `the bug` is, guesses, and is paid for the guess.",
        suggestion="Name the file, the function or the message, and by what you will see that it is done.",
        example="Fix the bug.",
        better="Fix the ZeroDivisionError in stats.py when the list is empty.",
        find=_vague,
    ),
    Rule(
        id="too-short",
        severity=Severity.WARNING,
        title="has fewer than three words",
        why="What is not said is guessed.",
        suggestion="Say what should be done with what, and what the result should look like.",
        example="Tests",
        better="Write tests for the parser in reader.py.",
        find=_too_short,
        unless=("vague", "slash-command", "refers-back"),
    ),
    Rule(
        id="few-words",
        severity=Severity.HINT,
        title="has fewer than five words and names nothing that is there",
        why="Short prompts are fine when they name a file, a command or a message; without one the agent has to look for what you mean.",
        suggestion="Name the file, the command or the message that it is about.",
        example="Update the documentation.",
        better="Update README.md for the option --fast.",
        find=_few_words,
        unless=("vague", "too-short", "open-command", "refers-back", "slash-command", "dialogue"),
    ),
    Rule(
        id="asks-back",
        severity=Severity.WARNING,
        title="wants to be asked, and nobody may be there to answer",
        why="A run goes on by itself, often overnight: what it asks is refused where nobody watches, or it stops half-way.",
        suggestion=_DECIDE,
        example="Clean up the imports in app.py and ask me before you delete something.",
        better="Clean up the imports in app.py; leave what you are not sure about, and list it.",
        find=lambda prompt: _matches(_ASKS, prompt),
        amend=lambda text: _appended(text, _DECIDE),
    ),
    Rule(
        id="dialogue",
        severity=Severity.HINT,
        title="asks for a conversation, and a run gives one answer",
        why="`Help me` and `guide me` invite questions and half steps; a command says what should be there at the end.",
        suggestion="Say what should be there at the end, as a command.",
        example="Help me write a parser for the log files in logs/.",
        better="Write a parser for the log files in logs/ into parse.py.",
        find=lambda prompt: _matches(_DIALOGUE, prompt),
        amend=_without_help,
        unless=("vague",),
    ),
    Rule(
        id="open-command",
        severity=Severity.HINT,
        title="says what to make, but not where it goes or what it must be like",
        why="The agent may print it, or put it into any file; what you get cannot be checked, and the next run cannot find it.",
        suggestion=_RESULT,
        example="Build a calculator.",
        better="Build a calculator for the command line in calc.py; `python calc.py 2+3` prints 5.",
        find=_open_command,
        amend=lambda text: _appended(text, _RESULT),
        unless=("vague", "too-short"),
    ),
    Rule(
        id="one-block",
        severity=Severity.HINT,
        title="has many demands in one block of text",
        why="In one long paragraph a demand is easily missed, by the agent and by whoever checks its work.",
        suggestion="Put each demand on a line of its own, numbered, or make a task list of it.",
        example=(
            "Read the code in src and find what is slow. Then measure it with the profiler and write down the figures. After that mend the worst of it. "
            "Also add a test for each change. Finally update the changelog and the documentation of the options."
        ),
        better=(
            "Make src faster:\n1. Measure it with the profiler, and write the figures to figures.md.\n2. Mend the worst of it.\n3. Add a test for each change.\n"
            "4. Update the changelog and the documentation of the options."
        ),
        find=_one_block,
        amend=_numbered,
        unless=("several-tasks",),
    ),
    Rule(
        id="several-tasks",
        severity=Severity.HINT,
        title="is a list of tasks",
        why="In one run they share one memory and one budget, and what fails takes the rest along. As a task list each has a fresh context and a receipt.",
        suggestion="Put `%%cc_tasks` on top instead of `%%cc_execute`, or save it as a file for `cc-executor tasks run FILE`.",
        example="Task 1: Read the code.\nTask 2: Mend what is slow.\nTask 3: Update the changelog.",
        better="Read the code in src and write down what is slow in slow.md.",
        find=_several_tasks,
    ),
    Rule(
        id="refers-back",
        severity=Severity.WARNING,
        title="refers to something that a fresh run does not know",
        why="Each run begins with an empty memory: there is no last time, and no earlier answer.",
        suggestion="Say what it was, or continue that session with --resume; in a task list take it in as {{ needs.ID.text }}.",
        example="Do it as discussed, and use the previous answer for the names.",
        better="Rename the functions in api.py after the table in names.md.",
        find=_refers_back,
    ),
    Rule(
        id="slash-command",
        severity=Severity.WARNING,
        title="begins like a command of Claude Code itself",
        why="The program takes `/name …` for one of its own commands; an unknown one ends the run at once, and the model is never asked.",
        suggestion="Put a word before it, or put it in backticks.",
        example="/etc is full, find out why.",
        better="The folder /etc is full, find out why.",
        find=_slash,
        amend=_no_slash,
    ),
    Rule(
        id="unfilled-variable",
        severity=Severity.WARNING,
        title="holds {{name}}, which is sent as it stands",
        why="Variables of the notebook are filled in only when a cell asks for it.",
        suggestion="In a cell add --vars to fill it in, elsewhere write its value; or put it in backticks if these very braces are meant.",
        example="Summarise the column {{column}} of data.csv.",
        better="Summarise the column price of data.csv.",
        find=_variables,
    ),
    Rule(
        id="unchecked-file",
        severity=Severity.HINT,
        title="names a file to be written that nothing checks",
        why="Without a check the receipt can only say what the agent claims.",
        suggestion="Add --expect FILE (in a list `expect: FILE`), or a command that looks at it with --verify.",
        example="Write a haiku about notebooks into haiku.md.",
        better="Count the words of the haiku in haiku.md.",
        find=_unchecked,
    ),
    Rule(
        id="context-size",
        severity=Severity.WARNING,
        title="may be more than the model can take",
        why="A prompt that does not fit is refused by the API; one that just fits leaves no room for the work.",
        suggestion="Put the material into a file and name the file, or split the work into a task list.",
        example="word " * 160_000,
        better="Read book.txt and write its summary into summary.md.",
        find=_size,
    ),
)
