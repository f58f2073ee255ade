"""A prompt out of a file, standard input or an argument."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cc_executor.errors import InvalidRequest
from cc_executor.model.ansi import encodable
from cc_executor.model.request import PROMPT_LIMIT


def read_prompt(file: str) -> str:
    """The text of a file; of standard input, if it is ``-``.

    Raises
    ------
    InvalidRequest
        It cannot be read, or is not UTF-8.
    """
    try:
        raw = sys.stdin.buffer.read(PROMPT_LIMIT + 1) if file == "-" else Path(file).read_bytes()
        return raw.decode(
            "utf-8", "replace" if len(raw) > PROMPT_LIMIT else "strict"
        )  # too long all the same, and perhaps cut within a character
    except OSError as error:
        raise InvalidRequest(
            f"There is no prompt to read in {file}: {error.strerror}. Name a file, or send the text to standard input."
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The prompt {file} is not UTF-8 text (byte {error.start}).") from error


def given_prompt(argument: str, *, is_command: bool) -> str:
    """A prompt that was written on the command line, as UTF-8 whatever the locale is.

    Raises
    ------
    InvalidRequest
        It is not UTF-8. A command (`is_command`) may be: it can name files whose names are no text.
    """
    if encodable(argument) == argument:
        return argument
    try:
        return os.fsencode(argument).decode("utf-8")  # Python keeps bytes that its locale cannot read as halves of surrogate pairs
    except UnicodeDecodeError as error:
        if is_command:
            return argument
        raise InvalidRequest(f"The prompt is not UTF-8 text (byte {error.start}). Send it as UTF-8.") from error
