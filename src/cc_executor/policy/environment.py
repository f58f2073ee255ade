"""Which environment variables an agent gets: an allow-list. Knows names; reads no environment.

A kernel's environment holds what an agent has no business with: the token of the hub, of the notebook server, of other services. So nothing is handed
on that is not named here or by the user.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from cc_executor.errors import InvalidRequest
from cc_executor.policy.redact import secret_values

_PROXIES: Final = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")

ALLOWED: Final = frozenset({
    # who and where
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TERM", "COLORTERM", "TZ", "TMPDIR", "TMP", "TEMP",
    # the network
    *_PROXIES, *(name.upper() for name in _PROXIES),
    "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    # the project's Python: the agent's tests are to import what the notebook imports
    "VIRTUAL_ENV", "PYTHONPATH",
    "SSH_AUTH_SOCK",
    # the trace that the run is part of
    "TRACEPARENT", "TRACESTATE",
})  # fmt: skip
ALLOWED_PREFIXES: Final = ("LC_", "XDG_", "CONDA_", "GIT_", "ANTHROPIC_", "CLAUDE_")

# Settings of the Claude CLI that do not carry its name. IS_SANDBOX lets root use bypassPermissions, in a container made for that.
_AGENT_NAMES: Final[Mapping[str, frozenset[str]]] = {
    "claude": frozenset({
        "API_TIMEOUT_MS", "BASH_DEFAULT_TIMEOUT_MS", "BASH_MAX_TIMEOUT_MS", "BASH_MAX_OUTPUT_LENGTH", "MAX_THINKING_TOKENS", "MAX_MCP_OUTPUT_TOKENS",
        "MCP_TIMEOUT", "MCP_TOOL_TIMEOUT", "DISABLE_TELEMETRY", "DISABLE_ERROR_REPORTING", "DISABLE_PROMPT_CACHING", "IS_SANDBOX",
    }),
}  # fmt: skip

# The login of a cloud is handed on only where the agent is told to use that cloud.
_CLOUDS: Final[Mapping[str, tuple[str, ...]]] = {
    "CLAUDE_CODE_USE_BEDROCK": ("AWS_",),
    "CLAUDE_CODE_USE_VERTEX": ("GOOGLE_", "CLOUD_ML_REGION", "VERTEX_REGION_"),
}

# What an agent tells its own tools and hooks. A run that is started from inside of another agent is no part of that agent's session.
NESTED: Final = frozenset({
    "CLAUDECODE", "CLAUDE_CODE_SESSION_ID", "CLAUDE_CODE_CHILD_SESSION", "CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_EXECPATH", "CLAUDE_PID",
    "CLAUDE_CODE_SSE_PORT", "CLAUDE_CODE_PARENT_SESSION_ID", "CLAUDE_AGENT_SDK_VERSION", "CLAUDE_PROJECT_DIR", "CLAUDE_ENV_FILE", "CLAUDE_PLUGIN_ROOT",
})  # fmt: skip

# The credentials of the notebook server and of its hub: with them, an agent is its user.
NEVER_PREFIXES: Final = ("JUPYTERHUB_", "JPY_")

# An agent can run `cc-executor`, and so can the agent that this starts. A notebook that an agent runs, with a list whose agents have helpers, is three deep;
# five leave room for more, and even two runs at each step are then no more than 62.
DEPTH: Final = "CC_EXECUTOR_DEPTH"
DEEPEST: Final = 5

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OFF: Final = frozenset({"", "0", "false", "no", "off"})


def child_environment(
    environ: Mapping[str, str], *, extra_names: Sequence[str], additions: Mapping[str, str], agent: str
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The environment for an agent.

    Parameters
    ----------
    environ : mapping of str to str
        The environment of whoever starts the run.
    extra_names : sequence of str
        Variables that the user hands on beyond the allow-list.
    additions : mapping of str to str
        What the agent's adapter sets; it overrides.
    agent : str
        The agent's name.

    Returns
    -------
    tuple of dict and tuple of str
        The environment, and the secret values to mask in the agent's output: its own, and those withheld from it, which a process of the same user
        can find elsewhere.

    Raises
    ------
    InvalidRequest
        An extra name is no name, is not set, or is a credential of the notebook server. Nothing was started.
    """
    for name in extra_names:
        _check(name, environ)
    allowed = ALLOWED | _AGENT_NAMES.get(agent, frozenset())
    prefixes = (*ALLOWED_PREFIXES, *_cloud_prefixes(environ))
    env = {
        name: value
        for name, value in environ.items()
        if name in extra_names
        or ((name in allowed or name.startswith(prefixes)) and name not in NESTED and not name.startswith(NEVER_PREFIXES))
    }
    env.update({DEPTH: deeper(environ), **additions})
    return env, secret_values({**environ, **env})


def depth_of(environ: Mapping[str, str]) -> int:
    """How many runs this environment lies within; 0 outside of all."""
    value = environ.get(DEPTH, "")
    return int(value) if re.fullmatch(r"[0-9]{1,6}", value) else 0


def deeper(environ: Mapping[str, str]) -> str:
    """What `DEPTH` is for whoever is started from this environment: an agent, a check, a hook."""
    return str(depth_of(environ) + 1)


def _check(name: str, environ: Mapping[str, str]) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} is no name of an environment variable: give the name only, its value is taken from the environment."
        )
    if name.startswith(NEVER_PREFIXES):
        raise InvalidRequest(f"{name} is a credential of the notebook server and is never given to an agent: leave it out.")
    if name not in environ:
        raise InvalidRequest(f"The environment variable {name} is not set: set it before the run, or leave it out.")


def _cloud_prefixes(environ: Mapping[str, str]) -> tuple[str, ...]:
    used = (prefixes for switch, prefixes in _CLOUDS.items() if environ.get(switch, "").lower() not in _OFF)
    return tuple(prefix for prefixes in used for prefix in prefixes)
