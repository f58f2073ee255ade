"""A question of an agent and its answer: what may be said, what is kept, and how both are put in words. Knows shapes; knows no agent's dialect and no screen."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec.structs import replace

from cc_executor.model import toolcall
from cc_executor.model.event import Answered, PermissionAsked, Question, QuestionAsked
from cc_executor.model.paths import Roots, below

Ask = PermissionAsked | QuestionAsked

ASK_USER: Final = "AskUserQuestion"  # Claude Code's own tool for questions
WHAT_CHARS: Final = 300  # of a question in a record or a receipt
# Claude Code 2.1's tools whose line is a path (`toolcall.summary`). Of another one a record does not tell a path from a command.
BY_PATH: Final = frozenset({"Read", "Write", "Edit", "MultiEdit", "NotebookEdit"})
OPEN_LIMIT: Final = 20
ASKED_LIMIT: Final = 100  # the journal has all of them
REASON_CHARS: Final = 2000  # of what a person types; the record in the journal keeps as much


class Decision(StrEnum):
    """What somebody said to a question."""

    ALLOW = "allow"  # this one call
    ALLOW_RUN = "allow_run"  # and whatever is like it, until the run ends
    DENY = "deny"
    ANSWER = "answer"
    REFUSED = "refused"  # nobody was there who could say anything


DECISION_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        Decision.ALLOW: "Allowed once",
        Decision.ALLOW_RUN: "Allowed for this run",
        Decision.DENY: "Denied",
        Decision.ANSWER: "Answered",
        Decision.REFUSED: "Refused, for nobody could answer",
    }
)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What to tell the agent.

    Attributes
    ----------
    decision : Decision
    text : str
        A reason that the agent sees, with `DENY` and `REFUSED`.
    answers : tuple of str
        With `ANSWER`: one text for each question, in their order.
    """

    decision: Decision
    text: str = ""
    answers: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """What was said, for the record."""
        return (" · ".join(self.answers) if self.decision is Decision.ANSWER else self.text)[:REASON_CHARS]


class Body(StrEnum):
    """What the text of a request is."""

    COMMAND = "command"
    DIFF = "diff"
    TEXT = "text"


class ShownAsk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A question as a person sees it: texts alone, bounded, without secrets and without unseen characters.

    Attributes
    ----------
    title : str
        The tool, or who asks.
    about : str
        What the call is for, or the file that it is about.
    body : str
        What would be done.
    scope : str
        What "for this run" would allow.
    """

    id: str
    kind: str
    title: str
    about: str = ""
    body: str = ""
    body_kind: Body = Body.TEXT
    scope: str = ""
    questions: tuple[Question, ...] = ()


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """A question as it is remembered; without a decision nobody has answered it. `at`: seconds since the epoch."""

    ask_id: str
    tool_id: str = ""
    kind: str = "permission"  # or "question"
    what: str = ""
    decision: str = ""
    by: str = ""
    at: float = 0.0
    note: str = ""


class Questions(msgspec.Struct, frozen=True, kw_only=True):
    """The questions of a run.

    Attributes
    ----------
    open : tuple of Ask
        The newest that nobody has answered; at most `OPEN_LIMIT`.
    asked : tuple of Settled
        The first, at most `ASKED_LIMIT`, with their answers; `left_out` counts the rest.
    """

    open: tuple[Ask, ...] = ()
    asked: tuple[Settled, ...] = ()
    left_out: int = 0

    def plus(self, ask: Ask) -> Questions:
        """With one more."""
        kind = "permission" if isinstance(ask, PermissionAsked) else "question"
        new = Settled(ask_id=ask.ask_id, tool_id=ask.tool_id, kind=kind, what=what_of(ask))
        surplus = max(0, len(self.asked) + 1 - ASKED_LIMIT)
        return Questions(open=(*self.open, ask)[-OPEN_LIMIT:], asked=(*self.asked, new)[:ASKED_LIMIT], left_out=self.left_out + surplus)

    def answered(self, event: Answered) -> Questions:
        """With the answer to one."""
        asked = tuple(
            replace(one, decision=event.decision, by=event.by, at=event.at, note=event.note) if one.ask_id == event.ask_id else one
            for one in self.asked
        )
        return replace(self.without(event.ask_id), asked=asked)

    def without(self, ask_id: str) -> Questions:
        """Nobody waits for the answer to this one."""
        return replace(self, open=tuple(ask for ask in self.open if ask.ask_id != ask_id)) if self.open else self

    def returned(self, tool_id: str) -> Questions:
        """The call that was asked for is over."""
        return replace(self, open=tuple(ask for ask in self.open if ask.tool_id != tool_id)) if self.open else self

    def closed(self) -> Questions:
        """The agent has said its last word."""
        return replace(self, open=()) if self.open else self


def what_of(ask: Ask, roots: Roots = ()) -> str:
    """The question in one line; for records with whole paths, for people with `roots`."""
    if isinstance(ask, QuestionAsked):
        return toolcall.one_line("; ".join(question.text for question in ask.questions), WHAT_CHARS)
    about = toolcall.summary(toolcall.fields(ask.input, roots) or {})
    return toolcall.one_line(f"{ask.name}: {about}" if about else ask.name, WHAT_CHARS)


def what_from(what: str, roots: Roots) -> str:
    """What a record says of a question, for people."""
    name, colon, about = what.partition(": ")
    return f"{name}{colon}{below(about, roots)}" if name in BY_PATH else what
