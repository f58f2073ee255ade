"""Secrets out of a byte stream, also when a secret is split over two reads. Knows bytes; knows no file and no process."""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

MASK: Final = b"[masked]"
SHORTEST: Final = 8  # characters; what is shorter occurs in ordinary text, and masking it would spoil the journal
# What JSON is written with beyond what it must: by most, by PHP, by Go and Rails, by Gson.
ESCAPES: Final = tuple(
    str.maketrans({letter: "\\/" if letter == "/" else f"\\u{ord(letter):04x}" for letter in letters})
    for letters in ("", "/", "<>&", "<>&='")
)


def patterns(secrets: Iterable[str]) -> tuple[bytes, ...]:
    """Every form in which a secret may be written: as it is, as a JSON string, and as JSON inside a JSON string (a tool's input in a delta).

    The inner and the outer writer may each keep to ASCII or not, and escape more than they must.
    """
    forms: set[bytes] = set()
    for secret in secrets:
        if len(secret) < SHORTEST:
            continue
        newest = {secret, _as_text(secret)}
        for _ in range(3):
            forms.update(form.encode("utf-8", "surrogateescape" if _encodable(form) else "replace") for form in newest)
            newest = {
                json.dumps(form, ensure_ascii=ascii_only)[1:-1].translate(more)
                for form in newest
                for ascii_only in (False, True)
                for more in ESCAPES
            }
    return tuple(sorted(forms, key=len, reverse=True))


def _as_text(secret: str) -> str:
    """The secret as Node, and whoever else takes everything for UTF-8, writes it down: bytes that are none are U+FFFD."""
    text = secret.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if _encodable(secret) else secret
    # Of too few letters it would be found in anything that is no text.
    return text if len(text.replace("\ufffd", "")) >= SHORTEST else secret


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


class Masker:
    """One stream's mask. Overlapping secrets become one `[masked]`; what could still become a secret is held back until the next bytes or the end.

    At most the longest form less one byte is ever held.
    """

    def __init__(self, forms: tuple[bytes, ...]) -> None:
        self.count = 0
        self._forms = forms
        self._held = b""
        self._covered = 0  # leading bytes of `_held` that a mask already written stands for

    def feed(self, block: bytes) -> bytes:
        """What of the stream can be written now that `block` has come."""
        return self._advance(self._held + block, final=False)

    def close(self) -> bytes:
        """What was held back, at the end of the stream."""
        return self._advance(self._held, final=True)

    def _advance(self, data: bytes, *, final: bool) -> bytes:
        keep = len(data) if final else self._held_from(data)
        spans = sorted(self._spans(data))
        if not spans and not self._covered:
            self._held = data[keep:]
            return data[:keep]
        out: list[bytes] = []
        place = self._covered
        for start, end in spans:
            if start >= keep:
                break  # held as a whole: a longer secret may begin here
            if start >= place:
                out += (data[place:start], MASK)
                self.count += 1
            place = max(place, end)
        out.append(data[place:keep])  # empty when `place` is beyond `keep`
        self._held = data[keep:]
        self._covered = max(0, place - keep)
        return b"".join(out)

    def _spans(self, data: bytes) -> list[tuple[int, int]]:
        spans: list[tuple[int, int]] = []
        for form in self._forms:
            start = data.find(form)
            while start >= 0:
                spans.append((start, start + len(form)))
                start = data.find(form, start + 1)
        return spans

    def _held_from(self, data: bytes) -> int:
        """The first place whose rest is the beginning of a secret and not a whole one of that form."""
        earliest = len(data)
        for form in self._forms:
            start = data.find(form[:1], max(0, len(data) - len(form) + 1))
            while 0 <= start < earliest:
                if form.startswith(data[start:]):
                    earliest = start
                    break
                start = data.find(form[:1], start + 1)
        return earliest


def mask_text(text: str, forms: tuple[bytes, ...]) -> str:
    """A text with every secret replaced."""
    masker = Masker(forms)
    data = text.encode("utf-8", "surrogateescape" if _encodable(text) else "replace")
    return (masker.feed(data) + masker.close()).decode("utf-8", "replace")
