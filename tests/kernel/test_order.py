"""Options on their way: written into a cell's line or a shell's, read into a request, kept, given to the agent. At every stage they say the same."""

from __future__ import annotations

import argparse
import os
import shlex
import uuid
from pathlib import Path
from typing import Any, Final

import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st
from traitlets import TraitError
from traitlets.config import Config

from cc_executor.agents.claude.command import PERMISSION_MODES, ClaudeAgent
from cc_executor.api import make_request
from cc_executor.cli.commands import app
from cc_executor.errors import InvalidRequest
from cc_executor.kernel.config import CCExecutor
from cc_executor.kernel.options import OPTIONS, parse
from cc_executor.kernel.order import order_of
from cc_executor.model.request import STALL, RunRequest
from cc_executor.model.toollist import split_tools

SESSION: Final = str(uuid.UUID(int=1))

# One line of a cell, and something in it. No lone surrogates: where they may not be is shown by the tests of the command line.
LINE_ENDS: Final = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"  # as `str.splitlines` has them, and IPython with it
ODD: Final = st.sampled_from(
    [
        "-x",
        "--model=y",
        "=",
        "a=b",
        "'",
        '"',
        "\\",
        "a b",
        "#",
        "!",
        "%",
        "\x1b[1m",
        "\x07",
        "é\u0301",
        "\ufeff",
        "\u200b",
        "{{x}}",
        "a,b",
        "1e5",
        "None",
    ]
)
WORDS: Final = ODD | st.text(st.characters(exclude_categories=["Cs"], exclude_characters=f"{LINE_ENDS}\0"), min_size=1, max_size=15).filter(
    lambda text: text.strip() == text != "--"  # argparse before 3.13 drops the value of `--model=--` (CPython gh-59317)
)
PATHS: Final = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=f"{LINE_ENDS}\0~$"), min_size=1, max_size=15).filter(
    lambda text: text.strip() and text != "--"
)
TOOLS: Final = st.text("abcXYZ_*: -", min_size=1, max_size=8).filter(lambda text: text.strip() == text != "--")
TOOL: Final = TOOLS | st.tuples(TOOLS, st.lists(TOOLS, min_size=1, max_size=2)).map(lambda pair: f"{pair[0]}({', '.join(pair[1])})")
AMOUNTS: Final = st.floats(1e-3, 1e6, allow_nan=False)

# Option of the line → values, as `make_request` takes them.
VALUES: Final[dict[str, st.SearchStrategy[Any]]] = {
    "agent": st.sampled_from(["claude", "shell"]),
    "model": WORDS,
    "fallback_model": WORDS,
    "cwd": st.just(os.sep),
    "add_dirs": st.lists(PATHS, max_size=2),
    "tools": st.lists(TOOL, min_size=1, max_size=3),
    "permission_mode": st.sampled_from(sorted(PERMISSION_MODES)),
    "timeout": AMOUNTS,
    "stall_timeout": AMOUNTS,
    "max_cost": AMOUNTS,
    "linger": AMOUNTS,
    "journal_limit": st.integers(10**6, 10**12).map(str) | st.just("none"),
    "max_turns": st.integers(1, 10**6),
    "loop_guard": st.sampled_from(["off", "tell", "stop"]),
    "resume": WORDS,
    "append_system_prompt": WORDS,
    "verify": WORDS,
    "expect": st.lists(WORDS, max_size=2),
    "shell": st.sampled_from(["bash", "sh"]),
    "cli": WORDS,
    "env_names": st.lists(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), max_size=2),
    "keep_background": st.just(True),
    "trust_workspace": st.just(True),
    "label": WORDS,
}
GIVEN: Final = st.fixed_dictionaries({}, optional=VALUES)
PROMPTS: Final = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40).filter(str.strip)

FLAG: Final = {keywords.get("dest", flags[-1].removeprefix("--").replace("-", "_")): flags[-1] for flags, keywords, _ in OPTIONS}
# What only a cell has: names of the notebook's variables, what is said of its prompt, and what becomes of it. And who is told, which is in no request.
OF_CELLS: Final = {
    "out",
    "schema",
    "vars",
    "once",
    "bg",
    "no_raise_error",
    "rehearse",
    "rehearse_without_login",
    "undo",
    "lint",
    "lint_off",
    "lint_apply",
    "ask",
    "on_limit",
    "limit_wait_max",
    "on_output_limit",
    "reask",
    "max_cost_per_day",
    "notify",
    "notify_after",
    "notify_on",
}


def words_of(options: dict[str, Any], *, joined: bool) -> list[str]:
    """The options as words of a line; `joined`: ``--name=value``, which a value that begins with a dash needs."""
    words: list[str] = []
    for name, value in options.items():
        if value is True:
            words.append(FLAG[name])
            continue
        for item in value if isinstance(value, list) and name != "tools" else [value]:
            text = ",".join(item) if name == "tools" else str(item)
            words += [f"{FLAG[name]}={text}"] if joined or text.startswith("-") else [FLAG[name], text]
    return words


def asked(prompt: str, options: dict[str, Any]) -> RunRequest:
    """The same from Python, with the magic's own default."""
    return make_request(prompt, **({"permission_mode": "acceptEdits", "cwd": Path.cwd()} | options))


def test_every_option_is_written_here() -> None:
    assert set(VALUES) | OF_CELLS == set(FLAG)


@given(PROMPTS, GIVEN, st.booleans())
def test_a_line_of_a_cell_asks_for_what_its_words_say(prompt: str, options: dict[str, Any], joined: bool) -> None:
    line = shlex.join(words_of(options, joined=joined))
    order = order_of(line, f"{prompt}\n", settings=CCExecutor(environ={}), namespace={})
    assert order.request == asked(prompt, options)
    assert order.request.digest() == asked(prompt, options | {"label": "another"}).digest()


@given(PROMPTS, GIVEN)
def test_settings_ask_for_the_same_as_options(prompt: str, options: dict[str, Any]) -> None:
    known = {name: value for name, value in options.items() if name in CCExecutor.class_trait_names()}
    settings = CCExecutor(environ={})
    for name, value in known.items():
        settings.set_trait(name, value)
    assert order_of("", f"{prompt}\n", settings=settings, namespace={}).request == asked(prompt, known)


@given(GIVEN, st.booleans())
def test_a_shell_s_line_is_read_like_a_cell_s(options: dict[str, Any], joined: bool) -> None:
    words = words_of(options, joined=joined)
    renamed = {"add_dirs": "add_dir", "env_names": "env"}
    run: Any = typer.main.get_command(app)
    of_shell = run.commands["run"].make_context("run", [*words, "--", "prompt"]).params
    of_cell = vars(parse(shlex.join(words)))
    for name, value in options.items():
        shells, cells = of_shell[renamed.get(name, name)], of_cell[name]
        assert (list(shells or []) == list(cells or [])) if isinstance(value, list) and name != "tools" else (shells == cells), name


@given(PROMPTS, GIVEN)
def test_a_request_comes_back_from_its_json(prompt: str, options: dict[str, Any]) -> None:
    request = asked(prompt, options)
    back = RunRequest.model_validate_json(request.model_dump_json())
    assert back == request
    assert back.digest() == request.digest()


@given(PROMPTS, GIVEN)
def test_an_agent_is_given_what_was_asked_for(prompt: str, options: dict[str, Any]) -> None:
    request = asked(prompt, options | {"agent": "claude", "shell": None})
    command = ClaudeAgent().command(request, executable="/bin/claude", session_id=SESSION)
    told: dict[str, list[str]] = {}
    for argument in command.argv[1:]:
        name, _, value = argument.partition("=")
        told.setdefault(name, []).append(value)
    assert command.stdin is not None
    assert command.stdin.decode().removeprefix("\n" if prompt.startswith("/") else "") == prompt
    assert told.get("--model", [None]) == [request.model]
    assert told.get("--fallback-model", [None]) == [request.fallback_model]
    assert told.get("--resume", [None]) == [request.resume]
    assert told.get("--append-system-prompt", [None]) == [request.append_system_prompt]
    assert tuple(told.get("--add-dir", [])) == request.add_dirs
    assert tuple(told.get("--allowedTools", [])) == request.tools
    assert [int(turns) for turns in told.get("--max-turns", [])] == [turns for turns in [request.limits.turns] if turns is not None]
    for cost in told.get("--max-budget-usd", []):
        assert abs(float(cost) - (request.limits.cost or 0)) <= 5e-7
    assert ("--strict-mcp-config" in told) == (not request.trust_workspace)


@given(st.lists(TOOL, max_size=5))
def test_a_list_of_tools_is_split_where_it_was_joined(tools: list[str]) -> None:
    assert split_tools(" , ".join(tools)) == tuple(tools)


# What may stand in a line: options whole and in part, values that are none of theirs, quotes without an end.
PIECES: Final = st.sampled_from([flag for flags, _, _ in OPTIONS for flag in flags]) | st.sampled_from(
    [
        "=", " ", "'", '"', "\\", "--", "-", "-o", "-x", "1", "0", "-1", "nan", "inf", "1e999", "1e-9", "\u0661", "9" * 5000, "none", "20GB", "off", "shell", "bash",
        "{{x}}", "$HOME", "~", "~nobody/x", "/", ".", "..", "x" * 300, "\0", "\ud800", "\u2028", "run", "Bash(", ")", ",", "#", "{}", "lambda",
    ]
)  # fmt: skip
LINES: Final = st.lists(PIECES | st.text(max_size=4) | st.just(" ") | st.just(" "), max_size=14).map("".join)


@given((LINES | st.text(max_size=60)).map(lambda text: text.replace("\n", " ")))  # it is one line
def test_any_line_at_all_is_read_or_refused_in_one_sentence(line: str) -> None:
    refused: list[str] = []
    try:
        order_of(line, "prompt", settings=CCExecutor(environ={}), namespace={"x": "1", "run": {"type": "object"}, "off": 5})
    except InvalidRequest as error:
        refused.append(str(error))
    assert not any("\n" in sentence.strip() for sentence in refused)


@pytest.mark.parametrize(
    ("name", "wrong", "need"),
    [
        ("timeout", 0, "a number greater than 0, or None for no limit"),
        ("max_cost", -1.0, "a number greater than 0, or None for no limit"),
        ("max_cost_per_day", float("nan"), "a number greater than 0, or None for no limit"),
        ("stall_timeout", float("inf"), "a number greater than 0, or 0 or None for no limit"),
        ("max_turns", 0, "a number, 1 or more, or None for no limit"),
        ("linger", 0, "a number greater than 0"),
        ("limit_wait_max", -1, "a number greater than 0"),
        ("journal_limit", "much", "a size such as 20GB or 500MB, or none for no limit"),
        ("lint_off", ["vague", "vage"], "ids of lint rules, which `cc-executor lint --rules` prints, or all"),
    ],
)
def test_a_setting_that_means_nothing_is_refused_by_its_own_name(name: str, wrong: Any, need: str) -> None:
    settings = CCExecutor(environ={})
    before = getattr(settings, name)
    with pytest.raises(TraitError, match=rf"^CCExecutor\.{name} is .*; it must be {need}\.$"):
        setattr(settings, name, wrong)
    assert getattr(settings, name) == before
    variable = f"CC_EXECUTOR_{name.upper()}"
    with pytest.raises(InvalidRequest, match=rf"^The environment variable {variable} is .*; it must be {need}\. Change or unset it\.$"):
        CCExecutor(environ={variable: str(wrong)})
    with pytest.raises(InvalidRequest, match=rf"CCExecutor\.{name} is .*; it must be {need}\. Change or remove it\.$"):
        CCExecutor(environ={}, config=Config({"CCExecutor": {name: wrong}}))


def test_no_text_of_an_option_is_taken_for_a_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """Since Python 3.14 argparse looks at a text as soon as it gets it; one with `%cc` in it failed every cell."""
    add = argparse.ArgumentParser.add_argument

    def looked_at(parser: argparse.ArgumentParser, *flags: str, **keywords: Any) -> argparse.Action:
        action = add(parser, *flags, **keywords)
        assert (action.help or "") % {} == (action.help or "")
        return action

    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", looked_at)
    assert any("%" in text for _, _, text in OPTIONS)
    assert parse("--model small").model == "small"


@pytest.mark.parametrize("name", ["journal_limit", "max_cost", "timeout"])
@pytest.mark.parametrize("digits", [400, 5000])
def test_a_number_that_no_computer_counts_with_is_refused_wherever_it_stands(name: str, digits: int) -> None:
    text = "9" * digits
    with pytest.raises(InvalidRequest, match=name.upper()):
        CCExecutor(environ={f"CC_EXECUTOR_{name.upper()}": text})
    with pytest.raises(InvalidRequest):
        order_of(f"{FLAG[name]} {text}", "prompt", settings=CCExecutor(environ={}), namespace={})
    options: dict[str, Any] = {name: 10**400}
    with pytest.raises(InvalidRequest):
        make_request("prompt", **options)


def test_a_command_may_be_silent_for_as_long_as_it_likes_unless_somebody_says_otherwise() -> None:
    settings = CCExecutor(environ={})
    shell, own = (order_of(f"--agent shell {more}", "make", settings=settings, namespace={}) for more in ("", "--stall-timeout 60"))
    assert (shell.request.limits.stall, own.request.limits.stall) == (None, 60)
    assert order_of("", "Go.", settings=settings, namespace={}).request.limits.stall == STALL
    settings.agent = "shell"
    assert order_of("", "make", settings=settings, namespace={}).request.limits.stall is None
    settings.stall_timeout = 90
    assert order_of("", "make", settings=settings, namespace={}).request.limits.stall == 90


def test_a_bg_run_may_say_that_there_is_no_further_attempt() -> None:
    settings = CCExecutor(environ={})
    line = "--bg --on-limit stop --on-output-limit stop"
    assert order_of(line, "prompt", settings=settings, namespace={}).background
    for more in ("--on-limit wait", "--on-output-limit concise"):
        with pytest.raises(InvalidRequest, match="Nobody is there"):
            order_of(f"--bg {more}", "prompt", settings=settings, namespace={})


@pytest.mark.parametrize("written", ['{"after_run": "true"}', '{"after_run": [{"run": "true"}]}', '[{"when": "after_run", "run": "true"}]'])
def test_hooks_of_the_environment_are_written_as_everywhere(written: str) -> None:
    assert CCExecutor(environ={"CC_EXECUTOR_HOOKS": written}).hooks == [{"when": "after_run", "run": "true"}]


@pytest.mark.parametrize("written", ["1", '"true"', "{", "[" * 100_000])
def test_hooks_of_the_environment_that_are_none_are_refused_by_its_name(written: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^The environment variable CC_EXECUTOR_HOOKS is '.*'; it must be"):
        CCExecutor(environ={"CC_EXECUTOR_HOOKS": written})


@pytest.mark.parametrize(("name", "value"), [("stall_timeout", 0), ("timeout", None), ("journal_limit", "none"), ("max_turns", 1)])
def test_a_setting_takes_what_stands_for_no_limit(name: str, value: Any) -> None:
    settings = CCExecutor(environ={})
    setattr(settings, name, value)
    assert getattr(settings, name) == value
