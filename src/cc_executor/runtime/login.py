"""Whether somebody is logged in to the agent, as the agent itself says. Asks no network: a wrong key counts as a login here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cc_executor.policy.environment import child_environment
from cc_executor.runtime.question import NoAnswer, ask

LOGIN_BUDGET: Final = 10.0  # seconds; `claude auth status` answers in 0.4 s on an idle machine (2.1.197, 2.1.329)
LOGIN_CURE: Final = "Run `claude` in a terminal and log in, or set ANTHROPIC_API_KEY; `--rehearse hello` works without."


@dataclass(frozen=True, slots=True)
class Login:
    """`known` False: the agent gave no answer. `method`: api_key, oauth_token, claude.ai, none."""

    logged_in: bool
    method: str
    known: bool = True


def login_of(claude: str, *, environ: Mapping[str, str]) -> Login:
    """What `claude auth status` says in the environment that a run would get. `claude`: path of the CLI."""
    env, _ = child_environment(environ, extra_names=(), additions={}, agent="claude")
    try:
        _, answer = ask((claude, "auth", "status"), env=env, budget=LOGIN_BUDGET)
        status: Any = json.loads(answer)
        return Login(bool(status["loggedIn"]), str(status.get("authMethod")))
    except (OSError, NoAnswer, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Login(logged_in=False, method="unknown", known=False)
