"""`%cc answer`: what a run in the background asks, answered in a cell. Knows a line of words; what it means to the agent is decided elsewhere."""

from __future__ import annotations

import os
from typing import Any, Final

from cc_executor.errors import InvalidRequest
from cc_executor.kernel.cell import home_of
from cc_executor.kernel.options import words_of
from cc_executor.model.ask import DECISION_WORDS, Answer, Decision
from cc_executor.policy.redact import Redactor, secret_values
from cc_executor.runtime.answers import give, meant_ask, open_asks
from cc_executor.runtime.askpage import line_of, shown
from cc_executor.runtime.prompt import heading, question_words
from cc_executor.store.home import RUN_ID

USAGE: Final = "`%cc answer [RUN] allow`, `… run`, `… deny REASON`, or `… text ANSWER ANSWER`, one in quotes for each question"
_WORDS: Final = {"allow": Decision.ALLOW, "run": Decision.ALLOW_RUN, "deny": Decision.DENY, "text": Decision.ANSWER}


def answer_verb(shell: Any, line: str) -> None:
    """`%cc answer [RUN] [allow|run|deny|text …]`: the question of a run; without an answer, what is open.

    Raises
    ------
    InvalidRequest, RunNotFound, ControlFailed
    """
    words = words_of(line)
    home = home_of(shell)
    name = words.pop(0) if words and words[0] not in _WORDS else ""
    folder = home.pick(name)
    if words and words[0] not in _WORDS:
        raise InvalidRequest(f"{words[0]!r} is no answer: {USAGE}.")
    if len(words) > 1 and _WORDS[words[0]] in {Decision.ALLOW, Decision.ALLOW_RUN}:  # a run's id there would be leave for another run
        raise InvalidRequest(f"{words[0]!r} takes nothing after it, and nothing was allowed: {USAGE}.")
    if not name and len(words) > 1 and RUN_ID.match(words[1]):
        raise InvalidRequest(f"{words[1]} is a run, and no answer: name it before {words[0]!r}. Nothing was answered: {USAGE}.")
    asks = open_asks(folder)
    if not words:
        # Of the environment, too: what the agent wrote is masked already, and not what stands in a file with which it is compared.
        mask, cwd = Redactor(secret_values(os.environ)).text, folder.request().cwd
        for page in (shown(each, cwd=cwd, mask=mask) for each in asks):
            print("\n".join(map(question_words, page.questions)) if page.questions else heading(page))  # noqa: T201 - the command's answer
        print(USAGE if asks else f"Run {folder.run_id} asks nothing now.")  # noqa: T201 - the command's answer
        return
    ask = meant_ask(folder, asks)
    decision = _WORDS[words[0]]
    texts = tuple(words[1:]) if decision is Decision.ANSWER else ()
    give(folder, ask, Answer(decision=decision, text="" if texts else " ".join(words[1:]), answers=texts), by="magic")
    print(f"{DECISION_WORDS[decision]}: {line_of(ask, cwd=folder.request().cwd)}")  # noqa: T201 - the command's answer
