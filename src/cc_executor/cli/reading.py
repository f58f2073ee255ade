"""A prompt out of a file or standard input."""

from __future__ import annotations

import sys
from pathlib import Path

from cc_executor.errors import InvalidRequest
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
