"""What Tab offers after `%%cc_execute`, `%%cc_tasks` and `%cc`."""

from __future__ import annotations

import os
from typing import Final

from cc_executor.agents import AGENTS
from cc_executor.errors import CCExecutorError
from cc_executor.kernel import taskoptions
from cc_executor.kernel.magics import VERBS
from cc_executor.kernel.options import OPTIONS
from cc_executor.rehearsal import scripts
from cc_executor.store.home import StateHome, state_path

# The CLI's own modes (claude --help, 2.1.329).
PERMISSION_MODES: Final = ("acceptEdits", "bypassPermissions", "default", "dontAsk", "plan")
_RUNS_OFFERED: Final = 50


def completions(line: str, symbol: str) -> list[str]:
    """The words that may stand at the cursor.

    Parameters
    ----------
    line : str
        The line up to the cursor.
    symbol : str
        The word being written, possibly empty.
    """
    words = line.split()
    before = words[-1] if line.endswith(" ") or not symbol else words[-2] if len(words) > 1 else ""
    return [word for word in _candidates(words[0] if words else "", before) if word.startswith(symbol)]


def _candidates(magic: str, before: str) -> list[str]:
    if magic == "%%cc_tasks":
        return list(taskoptions.POLICIES) if before == "--on-failure" else [flag for flags, _, _ in taskoptions.OPTIONS for flag in flags]
    if magic.startswith("%%"):
        rehearsals = list(scripts.names())
        values: dict[str, list[str]] = {
            "--agent": list(AGENTS),
            "--permission-mode": list(PERMISSION_MODES),
            "--rehearse": rehearsals,
            "--rehearse-without-login": rehearsals,
            "--shell": ["bash", "sh", "zsh"],
        }
        return values.get(before) or [flag for flags, _, _ in OPTIONS for flag in flags]
    if magic == "%cc" and before == "%cc":
        return list(VERBS)
    return _run_ids()


def _run_ids() -> list[str]:
    try:
        return [run.run_id for run, _ in zip(StateHome(state_path(os.environ)).runs(), range(_RUNS_OFFERED), strict=False)]
    except CCExecutorError:
        return []
