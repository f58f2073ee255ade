"""An ordinary command as an agent: no model, no dialect, its output is its text. Knows argv; knows no PATH, starts nothing."""

from __future__ import annotations

import shlex
from typing import Final, Self

from cc_executor.agents.base import ARGUMENT_LIMIT, Command
from cc_executor.agents.framing import TextStream
from cc_executor.errors import InvalidRequest
from cc_executor.model.event import AgentEvent, TextWritten
from cc_executor.model.request import RunRequest

SHELLS: Final = ("bash", "zsh", "sh")

# The name of the one block that a command's standard output is.
BLOCK: Final = "stdout"

# What a command would leave undone without a word, so that an `ok` would promise what nobody has looked at. What may come from a user's defaults (a model, a
# permission mode) is none of them.
_NOT_FOR_COMMANDS: Final = {
    "output_schema": "has no structured result that a schema could be held against: leave the schema out, and check what it wrote with --verify.",
    "resume": "has no session that could be resumed: leave --resume out.",
    "append_system_prompt": "reads no system prompt: leave it out.",
    "rehearse": "asks no model in whose place a script could speak, and would really do what it says: leave --rehearse out.",
}


class ShellDecoder:
    """`cc_executor.agents.base.Decoder` for plain text: every chunk is a piece of the block ``"stdout"``."""

    __slots__ = ("_text",)

    def __init__(self) -> None:
        self._text = TextStream()

    def feed(self, data: bytes) -> list[AgentEvent]:
        """One event with the characters that `data` completes, or none."""
        text = self._text.feed(data)
        return [TextWritten(block=BLOCK, text=text)] if text else []

    def close(self) -> list[AgentEvent]:
        """What is left of a sequence that was never completed."""
        text = self._text.close()
        return [TextWritten(block=BLOCK, text=text)] if text else []

    def copy(self) -> Self:
        """An independent decoder in the same state."""
        twin = type(self)()
        twin._text = self._text.copy()
        return twin


class ShellAgent:
    """`cc_executor.agents.base.Agent` for a command line."""

    name = "shell"
    can_wait = False

    def command(self, request: RunRequest, *, executable: str, session_id: str, version: str = "", waits: bool = False) -> Command:
        """The process for `request`.

        Parameters
        ----------
        request : RunRequest
            With `shell`, that shell gets the prompt as its script (``-c``). Without, the prompt is split into words by the rules of POSIX shells, and
            nothing in it is expanded.
        executable : str
            Absolute path of the shell, or of the command that the first word names.
        session_id : str
            Not used; a command has no session.

        Returns
        -------
        Command
            Without stdin.

        Raises
        ------
        InvalidRequest
            The quotes do not match, the shell is unknown, a word is too long, or something was asked for that no command does. Nothing was started.
        """
        for name, cure in _NOT_FOR_COMMANDS.items():
            if getattr(request, name) is not None:
                raise InvalidRequest(f"A command {cure}")
        if request.shell is not None:
            if request.shell not in SHELLS and "/" not in request.shell:
                raise InvalidRequest(
                    f"{request.shell!r} is no known shell. Choose one of {', '.join(SHELLS)}, or give the path of another."
                )
            # Shells read a script that begins with a sign as further options; an empty first line means nothing to any of them.
            script = f"\n{request.prompt}" if request.prompt.startswith(("-", "+")) else request.prompt
            return Command(argv=_checked((executable, "-c", script)))
        return Command(argv=_checked((executable, *words_of(request.prompt)[1:])))

    def decoder(self) -> ShellDecoder:
        """A fresh decoder for the command's stdout."""
        return ShellDecoder()


def words_of(line: str) -> list[str]:
    """A command line without a shell as its words, at least one.

    Raises
    ------
    InvalidRequest
        The quotes do not match, or there is no word.
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise InvalidRequest(
            f"The command cannot be split into words ({error}): close the quote, or name a shell with --shell bash."
        ) from error
    if not words:
        raise InvalidRequest("The command is empty: write what to run.")
    return words


def _checked(argv: tuple[str, ...]) -> tuple[str, ...]:
    for word in argv:
        try:
            size = len(word.encode("utf-8", "surrogateescape"))  # how Python itself carries bytes that are no UTF-8
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                f"The command holds half a character at position {error.start} of {word[:40]!r}, and no program can be given that: remove it."
            ) from None
        if size > ARGUMENT_LIMIT:
            raise InvalidRequest(
                f"A word of the command has {size:,} bytes; the limit is {ARGUMENT_LIMIT:,}: put the script in a file and run the file."
            )
    return argv
