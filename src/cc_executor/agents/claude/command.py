"""The command line of Claude Code for a request. Knows the CLI's options and their traps; knows no environment, starts nothing.

Every value travels as ``--option=value``: a value that begins with ``-`` cannot become an option, and a variadic option (``--add-dir``,
``--allowedTools``) cannot swallow what follows it, because commander ends a variadic list after ``=`` (tried with 2.1.197 and 2.1.329). The prompt is
not in the command line at all; it goes to stdin, which has no limit of 128 KiB, no leading dash, and no reader in the list of processes.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, cast

from cc_executor.agents.base import ARGUMENT_LIMIT, Command, Talk
from cc_executor.agents.claude import control
from cc_executor.agents.claude.decode import ClaudeDecoder
from cc_executor.errors import InvalidRequest
from cc_executor.model.ansi import encodable
from cc_executor.model.request import RunRequest

# As the user says it → as the CLI takes it. `manual` is the newer name of `default`: 2.1.329 takes both, 2.1.197 only `default`.
PERMISSION_MODES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "acceptEdits": "acceptEdits",
        "auto": "auto",
        "bypassPermissions": "bypassPermissions",
        "default": "default",
        "dontAsk": "dontAsk",
        "manual": "default",
        "plan": "plan",
    }
)
DEFAULT_PERMISSION_MODE: Final = "acceptEdits"

ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        # `idle` is the one trustworthy sign that background work is over too (both versions); without this it is not said.
        "CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS": "1",
        # A run is one version of the agent from start to end, and its receipt names that version.
        "DISABLE_AUTOUPDATER": "1",
        # Wait for the MCP servers, so that the first turn has the tools that the receipt says it had.
        "MCP_CONNECTION_NONBLOCKING": "0",
    }
)

# In a folder that the user has not trusted, the folder's own settings, hooks and MCP servers are not read: `-p` skips the CLI's trust dialog, and
# such a folder has run its hook, started its server and received the API key.
UNTRUSTED: Final = ("--setting-sources=user", "--strict-mcp-config")
TRUSTED: Final = ("--setting-sources=user,project,local",)

# How a `result` line begins: in 2.1.197, and in 2.1.329, which writes its type further behind. Every one of the recordings begins so, and no other line.
DONE: Final = ('{"type":"result"', '{"duration_api_ms":')
# After it a turn may follow: a command in the background has ended, and the model is told.
ANEW: Final = ('{"type":"system","subtype":"init"',)

# What 2.1.330 writes each 10 s while its API sends nothing but pings: the line is open, and nobody answers.
QUIET: Final = ('{"type":"stream_event","event":{"type":"ping"}',)

# The first version that was seen to take --include-hook-events: the user's own hooks of Claude Code are events then, and their failures are seen.
HOOK_EVENTS_SINCE: Final = (2, 1, 197)

# Keywords of JSON Schema whose values hold names of the user's own, and those whose values are no schemas.
_BY_NAME: Final = frozenset({"properties", "patternProperties", "dependencies", "definitions", "$defs"})
_VALUES: Final = frozenset({"const", "default", "enum", "examples"})

_SMALLEST_AMOUNT: Final = 1e-6  # US dollars; less than one token of any model costs


class ClaudeAgent:
    """`cc_executor.agents.base.Agent` for Claude Code."""

    name = "claude"
    can_wait = True

    def command(self, request: RunRequest, *, executable: str, session_id: str, version: str = "", waits: bool = False) -> Command:
        """The process for `request`.

        Parameters
        ----------
        request : RunRequest
            What to run.
        executable : str
            Absolute path of the CLI.
        session_id : str
            A UUID for the new session; not used when `request.resume` names one that exists.
        version : str
            The CLI's own, if known: an option that an older one does not have would end the run.
        waits : bool
            It is started before its prompt is known: the prompt is a line on a stdin that stays open.

        Returns
        -------
        Command
            The prompt is on stdin, as UTF-8; lone surrogates, which UTF-8 cannot carry, are U+FFFD there. See `prompt_bytes`.

        Raises
        ------
        InvalidRequest
            An option's value cannot be given to the CLI. Nothing was started.
        """
        if request.shell is not None:  # who forgot the agent would have the model read, and be paid for, a command
            raise InvalidRequest(
                "A shell reads commands, and this prompt is for a model: add --agent shell to run it as a command, or leave --shell out."
            )
        prompt = prompt_bytes(request.prompt)
        is_told = request.ask or waits
        return Command(
            argv=(executable, *_options(request, session_id, version, waits=waits)),
            env=ENVIRONMENT,
            stdin=control.prompt_line(prompt.decode()) if is_told else prompt,
            done=DONE,
            anew=ANEW,
            talk=Talk(asked=control.ASKED, withdrawn=control.WITHDRAWN) if is_told else None,
            quiet=QUIET,
        )

    def decoder(self) -> ClaudeDecoder:
        """A fresh decoder for the CLI's stdout."""
        return ClaudeDecoder()


def prompt_bytes(prompt: str) -> bytes:
    """The prompt as the CLI is to read it.

    A prompt whose first character is ``/`` gets a newline before it. Otherwise the CLI takes ``/word`` for a command of its own: it answers
    "Unknown command", or executes ``/cost`` or ``/compact``, and ends with success and without having asked a model. With the newline the text
    reaches the model, newline included (2.1.197 and 2.1.329). ``@path`` is expanded by the CLI as always.
    """
    return encodable(f"\n{prompt}" if prompt.startswith("/") else prompt).encode()


def _options(request: RunRequest, session_id: str, version: str, *, waits: bool) -> Iterator[str]:
    # `--verbose` is no matter of taste: the CLI refuses stream-json without it.
    yield from ("-p", "--output-format=stream-json", "--verbose", "--include-partial-messages")
    if _at_least(version, HOOK_EVENTS_SINCE):
        yield "--include-hook-events"
    if request.ask or waits:
        yield control.INPUT
    if request.ask:
        yield control.ASKS
    yield from TRUSTED if request.trust_workspace else UNTRUSTED
    yield f"--permission-mode={_permission_mode(request.permission_mode)}"
    if request.resume is not None:
        yield _option("--resume", request.resume)
    else:
        yield f"--session-id={_session_id(session_id)}"
    if request.model is not None:
        yield _option("--model", request.model)
    if request.fallback_model is not None:
        yield _option("--fallback-model", request.fallback_model)
    if request.limits.turns is not None:
        yield f"--max-turns={request.limits.turns}"
    if request.limits.cost is not None:
        yield f"--max-budget-usd={_decimal(request.limits.cost)}"
    if request.output_schema is not None:
        yield _option("--json-schema", _schema(request.output_schema))
    if request.append_system_prompt:
        yield _option("--append-system-prompt", request.append_system_prompt)
    for folder in request.add_dirs:
        yield _option("--add-dir", folder)
    for tool in request.tools:
        yield _option("--allowedTools", tool)


def _at_least(version: str, wanted: tuple[int, ...]) -> bool:
    numbers = [int(number) for number in re.findall(r"\d{1,9}", version, re.ASCII)[:3]]
    return tuple(numbers) >= wanted


def _option(name: str, value: str) -> str:
    option = encodable(f"{name}={value}")
    if not value.strip():
        raise InvalidRequest(f"The value for {name} is empty: leave it out, or say what it should be.")
    if "\0" in option:
        raise InvalidRequest(f"The value for {name} holds a NUL character: remove it.")
    size = len(option.encode())
    if size > ARGUMENT_LIMIT:
        raise InvalidRequest(
            f"The value for {name} makes an argument of {size:,} bytes; the limit is {ARGUMENT_LIMIT:,}: put the material in a file that the prompt names."
        )
    return option


def _schema(schema: dict[str, Any]) -> str:
    try:
        return json.dumps(_without_remarks(schema), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(
            f"The output schema cannot be written as JSON ({error}): use objects, lists, text, numbers, true, false and null."
        ) from error


def _without_remarks(schema: Any) -> Any:
    """A schema without what only tells a reader something: the CLI does not start with a keyword that it does not know (2.1.330: "strict mode").

    `discriminator` is what pydantic writes beside the `oneOf` of a tagged union, ``x-…`` what people add.
    """
    if isinstance(schema, list):
        return [_without_remarks(each) for each in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    kept: dict[Any, Any] = {}
    for keyword, value in cast("dict[Any, Any]", schema).items():
        if keyword in _BY_NAME and isinstance(value, dict):
            kept[keyword] = {name: _without_remarks(each) for name, each in cast("dict[Any, Any]", value).items()}
        elif keyword in _VALUES:
            kept[keyword] = value
        elif keyword != "discriminator" and not str(keyword).startswith("x-"):
            kept[keyword] = _without_remarks(value)
    return kept


def _permission_mode(mode: str | None) -> str:
    known = PERMISSION_MODES.get(mode or DEFAULT_PERMISSION_MODE)
    if known is None:
        raise InvalidRequest(f"{mode!r} is no permission mode. Choose one of: {', '.join(PERMISSION_MODES)}.")
    return known


def _session_id(session_id: str) -> str:
    try:
        return str(uuid.UUID(session_id))
    except ValueError as error:
        raise InvalidRequest(f"{session_id!r} is no UUID, and Claude Code takes nothing else for a session.") from error


def _decimal(amount: float) -> str:
    """Without an exponent: `1e-05` is a number to the CLI's parser, but not to everybody who reads the receipt."""
    return f"{amount:.6f}".rstrip("0").rstrip(".") if amount >= _SMALLEST_AMOUNT else f"{_SMALLEST_AMOUNT:.6f}"
