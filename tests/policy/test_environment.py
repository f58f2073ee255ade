from __future__ import annotations

import pytest

from cc_executor.agents import AGENTS
from cc_executor.errors import InvalidRequest
from cc_executor.policy.environment import DEPTH, NESTED, child_environment, depth_of

BASE = {"PATH": "/usr/bin", "HOME": "/home/me"}


def made(
    environ: dict[str, str], *, extra: tuple[str, ...] = (), additions: dict[str, str] | None = None, agent: str = "claude"
) -> tuple[dict[str, str], tuple[str, ...]]:
    env, secrets = child_environment(environ, extra_names=extra, additions=additions or {}, agent=agent)
    assert int(env.pop(DEPTH)) >= 1
    return env, secrets


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("name", [
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TERM", "TZ", "TMPDIR", "XDG_CONFIG_HOME", "http_proxy",
    "HTTPS_PROXY", "NO_PROXY", "all_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH",
    "GIT_AUTHOR_NAME", "SSH_AUTH_SOCK", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "CLAUDE_CONFIG_DIR", "CLAUDE_CODE_OAUTH_TOKEN",
])  # fmt: skip
def test_what_every_agent_gets(name: str, agent: str) -> None:
    assert made({name: "value"}, agent=agent)[0] == {name: "value"}


@pytest.mark.row(
    "threats", "environment of the agent", "an allow-list: no token of the hub or the server, no cloud key, nothing that was not named"
)
@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("name", [
    "JUPYTERHUB_API_TOKEN", "JUPYTERHUB_USER", "JPY_API_TOKEN", "JPY_PARENT_PID", "JUPYTER_TOKEN", "AWS_SECRET_ACCESS_KEY", "GOOGLE_API_KEY",
    "OPENAI_API_KEY", "GITHUB_TOKEN", "DATABASE_URL", "CC_EXECUTOR_RUN", "CLOUD_ML_REGION", "LD_PRELOAD", "PYTHONSTARTUP", "NODE_OPTIONS", *sorted(NESTED),
])  # fmt: skip
def test_what_no_agent_gets_by_itself(name: str, agent: str) -> None:
    assert made({**BASE, name: "value"}, agent=agent)[0] == BASE


def test_settings_of_the_cli_are_for_the_cli_alone() -> None:
    environ = {**BASE, "IS_SANDBOX": "1", "API_TIMEOUT_MS": "60000"}
    assert made(environ)[0] == environ
    assert made(environ, agent="shell")[0] == BASE


@pytest.mark.row(
    "threats", "environment of the agent", "an allow-list: no token of the hub or the server, no cloud key, nothing that was not named"
)
@pytest.mark.parametrize(
    ("switch", "name"),
    [("CLAUDE_CODE_USE_BEDROCK", "AWS_PROFILE"), ("CLAUDE_CODE_USE_BEDROCK", "AWS_BEARER_TOKEN_BEDROCK"), ("CLAUDE_CODE_USE_VERTEX", "CLOUD_ML_REGION"),
     ("CLAUDE_CODE_USE_VERTEX", "GOOGLE_APPLICATION_CREDENTIALS")],
)  # fmt: skip
def test_the_login_of_a_cloud_goes_only_with_its_switch(switch: str, name: str) -> None:
    assert name in made({switch: "1", name: "value"})[0]
    for off in ("", "0", "false"):
        assert name not in made({switch: off, name: "value"})[0]
    other = {"CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX"} - {switch}
    assert name not in made({other.pop(): "1", name: "value"})[0]


def test_the_user_hands_on_more_by_name() -> None:
    assert made({**BASE, "MY_VALUE": "1", "OTHER": "2"}, extra=("MY_VALUE",))[0] == {**BASE, "MY_VALUE": "1"}


@pytest.mark.row(
    "threats", "environment of the agent", "an allow-list: no token of the hub or the server, no cloud key, nothing that was not named"
)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("JUPYTERHUB_API_TOKEN", "never given"),
        ("JPY_API_TOKEN", "never given"),
        ("MISSING", "is not set"),
        ("A=B", "no name"),
        ("", "no name"),
        ("1A", "no name"),
    ],
)
def test_a_name_that_cannot_be_handed_on_is_refused(name: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        made({**BASE, "JUPYTERHUB_API_TOKEN": "x", "JPY_API_TOKEN": "x"}, extra=(name,))


def test_what_the_adapter_sets_wins() -> None:
    assert made({**BASE, "CLAUDE_X": "user"}, additions={"CLAUDE_X": "ours", "NEW": "1"})[0] == {**BASE, "CLAUDE_X": "ours", "NEW": "1"}


def test_secrets_to_mask_are_the_agents_and_those_withheld_from_it() -> None:
    environ = {**BASE, "ANTHROPIC_API_KEY": "sk-dummy-1234", "JUPYTERHUB_API_TOKEN": "hub-token-5678", "MY_TOKEN": "mine-90123"}
    env, secrets = made(environ, extra=("MY_TOKEN",), additions={"GIVEN_SECRET": "given-secret"})
    assert set(secrets) == {"sk-dummy-1234", "hub-token-5678", "mine-90123", "given-secret"}
    assert "JUPYTERHUB_API_TOKEN" not in env


def test_the_callers_environment_is_left_alone() -> None:
    environ = dict(BASE)
    made(environ, additions={"NEW": "1"})
    assert environ == BASE


@pytest.mark.parametrize(("value", "depth"), [(None, 0), ("", 0), ("0", 0), ("3", 3), ("-1", 0), ("3.5", 0), ("٣", 0), ("9" * 5000, 0)])
def test_how_deep_an_environment_lies(value: str | None, depth: int) -> None:
    environ = BASE if value is None else {**BASE, DEPTH: value}
    assert depth_of(environ) == depth
    assert child_environment(environ, extra_names=(), additions={}, agent="claude")[0][DEPTH] == str(depth + 1)
