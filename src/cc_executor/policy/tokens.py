"""How many tokens a prompt has, as far as that can be said without asking: at least, likely, at most; and whether a model can take it. Pure.

No tokenizer of a current model is published, and the API's own count costs a request. So the runs of letters, digits and signs are counted by kind of
script, with weights that were fitted to the one tokenizer that Anthropic has published (`@anthropic-ai/tokenizer` 0.0.4, of Claude 2) over the texts of
tests/policy/token_samples.json, which also has what two other public tokenizers count. What it is worth on them is in docs/lint.md, and tested.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import msgspec

# docs.claude.com, "Token counting": Opus 4.7 and later, Sonnet 5 and later have "a newer tokenizer. The same input text produces approximately 30 percent
# more tokens than on earlier models."
NEWER: Final = 1.3
MARGIN: Final = 1.75  # of `most` beyond `likely`: the worst of the samples is off by a factor of 1.65 (base64; most are within 1.2)
MERGED: Final = 0.85  # tokenizers put some neighbours into one token that are two runs here (a sign and the end of its line)


WHOLE: Final = 500_000  # characters that are counted whole, some 0.1 s; of a longer text slices are looked at, and the bounds are wider
SLICES: Final = 20
SLICED: Final = 1.5


class Script(msgspec.Struct, frozen=True):
    """Runs of one kind, and what they come to: `first` tokens, and one for every `per` characters beyond `free`; surely one for `longest` characters.

    Attributes
    ----------
    pattern : str
        Compiled when something is counted (`re` keeps it): most prompts are too short for a doubt, and a first run need not wait for it.
    longest : float
        0: the run adds to what another one counts for sure already.
    """

    name: str
    pattern: str
    first: float
    free: int = 1
    per: float = 1.0
    longest: float = 0.0


# All that a text of ASCII can have, control characters among the others.
PLAIN: Final = (
    Script("words", r"[A-Za-z\u00aa-\u024f\u1e00-\u1eff]+", 1, 8, 4.5, longest=64),
    Script("camelCase", r"[a-z][A-Z]", 0.5, 2),
    Script("CAPITALS", r"[A-Z]{4,}", 0.25, 4, 3),
    Script("digits", r"[0-9]+", 1, 2, 2.2, longest=64),
    Script("signs", r"[!-/:-@\[-`{-~]+", 1, 2, 1.8, longest=256),
    Script("lines and indents", r"\s*\n\s*|[^\S\n]{2,}", 1, 16, 16, longest=1024),
    Script("others", r"[^\s\x21-\x7e\u00aa-\u052f\u0590-\u109f\u1100-\u11ff\u1e00-\u1fff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]", 2.2, longest=4),
)  # fmt: skip
SCRIPTS: Final = (
    *PLAIN,
    Script("stacked accents", r"[\u1e00-\u1eff]", 1.6),
    Script("Cyrillic", r"[\u0400-\u052f]+", 0.63, per=1 / 0.63, longest=16),
    Script("Greek", r"[\u0370-\u03ff\u1f00-\u1fff]+", 1.2, per=1 / 1.2, longest=12),
    Script("Hebrew, Arabic", r"[\u0590-\u08ff]+", 1.05, per=1 / 1.05, longest=12),
    Script("Indic, Thai", r"[\u0900-\u109f]+", 1.5, per=1 / 1.5, longest=8),
    Script("Hangul", r"[\uac00-\ud7af\u1100-\u11ff]+", 1.3, per=1 / 1.3, longest=4),
    Script("kana", r"[\u3040-\u30ff]+", 1.0, longest=4),
    Script("Han", r"[\u3400-\u4dbf\u4e00-\u9fff]+", 1.15, per=1 / 1.15, longest=4),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Count:
    """Tokens of a text. `least`: what no tokenizer known to us stays below; `most`: what none comes to; `likely`: a guess between them."""

    least: int
    likely: int
    most: int

    def __str__(self) -> str:
        return f"about {rounded(self.likely)} tokens ({rounded(self.least)} to {rounded(self.most)})"


class Window(msgspec.Struct, frozen=True):
    """What a model's context holds, in tokens.

    Attributes
    ----------
    sure : int
        It holds so many in every way of asking for it that is known.
    largest : int
        It never holds more.
    growth : float
        How many more tokens this model makes of a text than the published tokenizer.
    """

    model: str
    sure: int
    largest: int
    growth: float = NEWER


# The first that fits. From the CLI's own answers (`modelUsage.contextWindow` in tests/recordings: claude-opus-4-8[1m] and claude-opus-5-5 1,000,000,
# claude-opus-4-8, claude-sonnet-5 and claude-sonnet-4-5 200,000), and docs.claude.com, "Context windows", for what the API gives beyond that.
WINDOWS: Final = (
    Window(r"(?i)\[1m\]", 1_000_000, 1_000_000),
    Window(r"(?:opus|sonnet|haiku)-5-[5-9]|opus-5", 1_000_000, 1_000_000),
    Window(r"sonnet-5|opus-4-[78]", 200_000, 1_000_000),
    Window(r"(?:opus|sonnet)-4-6|sonnet-4", 200_000, 1_000_000, growth=1.0),  # Sonnet 4 and 4.5 by a beta header
    Window(r"haiku-4|opus-4|claude-(?:2|3|instant)", 200_000, 200_000, growth=1.0),
)
# Words of a language with accents come to more tokens than English ones: so much more, and so much for each accent by letter (German has 0.02, Polish 0.08).
_ACCENTS: Final = r"[\u00c0-\u024f]"
_ACCENTED: Final = (0.35, 9.0)
_IS_ACCENTED: Final = 0.005  # below it, the text is English with a name or two

ANY: Final = Window("", 200_000, 1_000_000)  # the agent's own default, an alias, a model that is not known

# What the CLI itself puts before a prompt: its instructions and its tools. The first request of 2.1.329 without settings, MCP servers and CLAUDE.md has
# 49,222 bytes, some 18,000 tokens.
OVERHEAD: Final = 20_000


def window_of(model: str | None) -> Window:
    """What the context of this model holds."""
    return next((window for window in WINDOWS if model and re.search(window.model, model)), ANY)


def count(text: str, model: str | None = None) -> Count:
    """The tokens of `text`, in some 0.1 s at most.

    Parameters
    ----------
    text : str
    model : str, optional
        None: the agent's default, taken for one with the newer tokenizer.
    """
    return _count(text, window_of(model).growth)


@lru_cache(maxsize=2)  # asked for the same text by whoever shows it and by whoever warns; a text may have 10 MB
def _count(text: str, growth: float) -> Count:
    size = len(text.encode("utf-8", "surrogatepass"))  # a token is one byte at least
    doubt = 1.0
    if len(text) <= WHOLE:
        least, likely = _weighed(text)
    else:
        step = len(text) // SLICES
        slices = [_weighed(text[start : start + WHOLE // SLICES]) for start in range(0, step * SLICES, step)]
        scale = step / (WHOLE // SLICES)
        least, likely = (scale * sum(column) for column in zip(*slices, strict=True))
        doubt = SLICED
    likely = min(likely * growth, size)
    return Count(int(least * MERGED / doubt), max(int(likely), 1), max(min(int(likely * MARGIN * doubt), size), 1))


def _weighed(text: str) -> tuple[float, float]:
    """What the runs of this text come to for sure, and most likely with the published tokenizer."""
    least = likely = 0.0
    for script in PLAIN if text.isascii() else SCRIPTS:
        lengths = Counter(map(len, re.findall(script.pattern, text)))
        more = _accented(text, lengths) if script.name == "words" else 1.0
        for length, runs in lengths.items():
            likely += runs * more * (script.first + max(0, length - script.free) / script.per)
            if script.longest:
                least += runs * max(1.0, length / script.longest)
    return least, likely


def _accented(text: str, words: Counter[int]) -> float:
    """How many more tokens the words of this text are than English ones."""
    accents = len(re.findall(_ACCENTS, text))
    share = accents / max(1, sum(length * runs for length, runs in words.items()))
    return 1.0 + min(1.0, _ACCENTED[0] + _ACCENTED[1] * share) if share > _IS_ACCENTED else 1.0


def over(text: str, model: str | None = None) -> str | None:
    """Why this prompt cannot be taken by the model, with the cure; None as long as it may be."""
    window = window_of(model)
    if len(text) <= window.largest * MERGED:  # each character would have to be a token
        return None
    if not _has_more_than(window.largest, text):
        return None
    return (
        f"has more than the {window.largest:,} tokens that the context of {model or 'the largest model'} holds: put the material into a file and name the file, "
        "or split the work into a task list"
    )


def _has_more_than(limit: int, text: str) -> bool:
    """Whether the text has surely more tokens; all of it is looked at, as far as needed."""
    if len(text.split()) * MERGED > limit:
        return True
    found = 0.0
    for start in range(0, len(text), WHOLE):
        found += _weighed(text[start : start + WHOLE])[0] - len(SCRIPTS)  # a run that is cut counts twice
        if found * MERGED > limit:
            return True
    return False


def tight(text: str, model: str | None = None) -> str | None:
    """Why this prompt may be more than the model can take; None when it surely fits."""
    window = window_of(model)
    room = window.sure - OVERHEAD
    if len(text.encode("utf-8", "surrogatepass")) <= room:
        return None
    found = count(text, model)
    if found.most <= room:
        return None
    what = model or "the agent's default model"
    return (
        f"It has {found}; {what} takes {window.sure:,}{'' if window.sure == window.largest else f' to {window.largest:,}'}, of which the agent itself needs "
        f"about {OVERHEAD:,}."
    )


def rounded(tokens: int) -> str:
    """A count with two figures that mean something."""
    step = 10 ** max(0, len(str(tokens)) - 2)
    return f"{round(tokens / step) * step:,}"
