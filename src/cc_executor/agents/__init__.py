"""The agents by name. One row here, and a package beside it, is all that another agent needs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from cc_executor.agents.base import Agent
from cc_executor.agents.claude.command import ClaudeAgent
from cc_executor.agents.shell import ShellAgent
from cc_executor.errors import InvalidRequest

__all__ = ["AGENTS", "agent_named"]

AGENTS: Final[Mapping[str, Agent]] = MappingProxyType({agent.name: agent for agent in (ClaudeAgent(), ShellAgent())})


def agent_named(name: str) -> Agent:
    """The agent with this name.

    Raises
    ------
    InvalidRequest
        There is none; the message lists those that there are.
    """
    agent = AGENTS.get(name)
    if agent is None:
        raise InvalidRequest(f"There is no agent {name!r}. Choose one of: {', '.join(AGENTS)}.")
    return agent
