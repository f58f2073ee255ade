"""`%cc history` and `%cc estimate`: past runs in a notebook, and what they say about the next one."""

from __future__ import annotations

import argparse
import os
import re
import time
from typing import Any, Final, NoReturn

from cc_executor.api import make_request
from cc_executor.errors import InvalidRequest
from cc_executor.kernel.cell import home_of
from cc_executor.kernel.config import settings_of
from cc_executor.kernel.options import path_of, words_of
from cc_executor.runtime.forecast import estimate, estimate_lines
from cc_executor.runtime.past import History, filters_of, past
from cc_executor.runtime.reconcile import LIST_PATIENCE, reconcile

LENGTH: Final = 20
_OPTION: Final = re.compile(r"""--(agent|model|cwd|label|rehearse)[ =]("[^"]*"|'[^']*'|\S+)\s*""")
_TEXTS: Final = ("agent", "model", "outcome", "label", "cwd", "category", "text", "since", "until")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidRequest(f"{message[:1].upper()}{message[1:]}. It knows {', '.join(sorted(self._option_string_actions))}.")


def history_verb(shell: Any, line: str) -> History:
    """`%cc history [--outcome WORD] [--since TIME] …`: the runs, as a value that shows itself and can be kept in a variable."""
    parser = _Parser(prog="%cc history", add_help=False, allow_abbrev=False)
    for name in _TEXTS:
        parser.add_argument(f"--{name}", default=None)
    parser.add_argument("--list", dest="list_id", default=None)
    parser.add_argument("--limit", type=int, default=LENGTH)
    parser.add_argument("--all", dest="limit", action="store_const", const=None)
    parser.add_argument("--rehearsals", dest="rehearsed", action="store_true", default=None)
    parser.add_argument("--real", dest="rehearsed", action="store_false")
    options = vars(parser.parse_args(words_of(line)))
    given = {name: value for name, value in options.items() if value is not None}
    if "cwd" in given:
        given["cwd"] = path_of(given["cwd"])
    home = home_of(shell)
    reconcile(home, environ=os.environ, patience=LIST_PATIENCE)
    return past(home, filters_of(**given, now=time.time()), environ=os.environ)


def estimate_verb(shell: Any, line: str) -> None:
    """`%cc estimate [--agent NAME] [--model NAME] [--cwd FOLDER] [--label TEXT] [--rehearse SCRIPT] PROMPT`: prints how long it will take, and what it costs."""
    settings = settings_of(shell)
    given: dict[str, Any] = {"agent": settings.agent, "model": settings.model or None, "cwd": settings.cwd or None}
    rest = line.strip()
    while found := _OPTION.match(rest):  # by hand: a prompt may hold a quote that is not closed
        given[found[1]] = found[2].strip("'\"")
        rest = rest[found.end() :]
    if given["cwd"] is not None:
        given["cwd"] = path_of(given["cwd"])
    request = make_request(rest, **given)
    prediction, said = estimate(home_of(shell), request, environ=os.environ)
    print("\n".join([*said, *estimate_lines(prediction)]))  # noqa: T201 - the command's answer
