"""What each option of a request means, in a line: for whoever has nothing but a schema, as an agent that has our tools. Knows words alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

OF_RUN: Final[Mapping[str, str]] = {
    "prompt": "What the agent is told; for agent shell, the command.",
    "agent": "claude, or shell for a command.",
    "cwd": "The folder in which it works; the server's own if not given.",
    "add_dirs": "More folders that the agent may use.",
    "model": "The agent's model.",
    "fallback_model": "The model when the first is overloaded.",
    "permission_mode": "acceptEdits (if not given), default, plan, dontAsk or bypassPermissions.",
    "tools": "Tools allowed without asking, as Bash(git *) or Write.",
    "timeout": "Seconds of work after which the run is ended.",
    "stall_timeout": "Seconds without a sign of life after which it is ended: 600 for an agent if not given; 0 for no limit.",
    "max_cost": "US dollars.",
    "max_turns": "Turns of the agent.",
    "linger": "Seconds that the agent may stay after its last word for what it left in the background: 60 if not given.",
    "journal_limit": "How much of the output is kept: bytes, or a text such as 500MB; 20GB if not given.",
    "schema": "JSON Schema that the result must meet; the object is in data of the results.",
    "resume": "The session of the agent that goes on.",
    "append_system_prompt": "Text added to the agent's system prompt.",
    "verify": "A command that is run afterwards, outside the agent; exit code 0 means verified.",
    "expect": "Files that must be new or changed afterwards.",
    "ask": "Put what the agent asks to the user; if not, it is refused at once.",
    "rehearse": "Play this script instead of calling a model, hello for one; nothing is spent.",
    "shell": "For agent shell: what reads the command (bash, sh, zsh). If not given it is one command's words: ; | > and $ mean nothing.",
    "env_names": "Names of more environment variables for the agent.",
    "keep_background": "Leave processes alone that outlive the agent.",
    "trust_workspace": "Let the folder's own settings, hooks and MCP servers take effect.",
    "on_kernel_exit": "What becomes of the run when the server's process ends.",
    "loop_guard": "What is done when the agent repeats a call with the same result again and again.",
    "undo": "Look at the folder before and after, so that it can be undone: for agents yes, for commands no, if not given.",
    "label": "A name for lists of runs.",
    "amended": "Lint rules whose suggested text you have put into the prompt.",
}
OF_LIST: Final[Mapping[str, str]] = {
    "name": "A name for the list.",
    "cwd": "The folder in which the tasks work; the server's own if not given.",
    "parallel": "How many tasks of one group run at the same time.",
    "max_cost": "US dollars for the whole list.",
    "max_cost_per_day": "US dollars: nothing more is started when today's runs have cost this much.",
    "on_failure": "What a task that did not end well does to the others.",
    "on_limit": "What a usage limit with a known end does: stop, or wait until then and go on.",
    "limit_wait_max": "Seconds that this end may be away.",
    "defaults": "Options of execute, for every run.",
    "timeout_per_task": "Seconds, for tasks that name no timeout.",
    "fresh": "Do everything again, also what ended well before.",
}
