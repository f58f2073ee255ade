"""The options of `%%cc_tasks`, said once: parser, help and completion are made from this table. Imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import Final

from cc_executor.errors import InvalidRequest
from cc_executor.kernel.options import Options, check_out
from cc_executor.kernel.options import parse as options_of

POLICIES: Final = ("stop", "skip", "continue")
LIMIT_POLICIES: Final = ("stop", "wait")

OPTIONS: Final[Options] = (
    (("-o", "--out"), {"metavar": "NAME"}, "Bind the ListResult to this variable."),
    (("--name",), {"metavar": "TEXT"}, "A name for the list."),
    (("--cwd",), {"metavar": "FOLDER"}, "Where the tasks work; the kernel's folder if not given."),
    (("--parallel",), {"metavar": "N", "type": int}, "How many tasks of one group run at the same time; 4 if not given."),
    (("--max-cost",), {"metavar": "DOLLARS", "type": float}, "Start nothing that would bring the list over this cost."),
    (("--max-cost-per-day",), {"metavar": "DOLLARS", "type": float}, "The same for everything that is run on one day, this list and all else."),
    (("--on-limit",), {"metavar": "POLICY"}, "What a usage limit with a known end does: stop (the default) or wait until then."),
    (("--limit-wait-max",), {"metavar": "SECONDS", "type": float}, "How far away that end may be; 21600 (six hours) if not given."),
    (("--on-failure",), {"metavar": "POLICY"}, "What a task that did not end well does to the others: stop (the default), skip or continue."),
    (("--notify",), {"metavar": "TARGET", "action": "append"}, "Whom to tell of the end and of questions: browser, command:…, an https address, env:NAME; repeatable."),
    (("--notify-after",), {"metavar": "SECONDS", "type": float}, "Of what took less nobody is told; 30 if not given."),
    (("--notify-on",), {"metavar": "LIST"}, "What of: done, failed, input, comma-separated; all if not given."),
    (("--fresh",), {"action": "store_true"}, "Do everything again; without it, what ended well before is not done again."),
    (("--dry-run",), {"action": "store_true"}, "Print the order and what each task needs; nothing is started."),
    (("--no-raise-error",), {"action": "store_true"}, "Do not raise for a list that does not end well; the ListResult tells."),
)  # fmt: skip


def parse(line: str) -> argparse.Namespace:
    """The options in the magic's line.

    Raises
    ------
    InvalidRequest
        Unknown option, missing, ill-typed or impossible value, text that is no option, unclosed quote.
    """
    options = options_of(line, magic="%%cc_tasks", options=OPTIONS)
    check_out(options.out)
    if options.on_failure is not None and options.on_failure not in POLICIES:
        raise InvalidRequest(f"--on-failure is one of {', '.join(POLICIES)}, not {options.on_failure!r}.")
    if options.on_limit is not None and options.on_limit not in LIMIT_POLICIES:
        raise InvalidRequest(f"--on-limit is one of {', '.join(LIMIT_POLICIES)}, not {options.on_limit!r}.")
    return options
