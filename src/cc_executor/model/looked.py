"""What a door has made of a prompt before it is sent. Knows no rule: cells that ask for none load none."""

from __future__ import annotations

import msgspec


class Looked(msgspec.Struct, frozen=True):
    """A prompt that was looked over at a door: what is to be sent, the rules that have changed it, and what a person is told before it is."""

    prompt: str
    amended: tuple[str, ...] = ()
    said: str = ""
