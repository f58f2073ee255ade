"""What kind of work a prompt asks for: a category and a complexity, from its words alone. Pure; whole words, never parts of words.

Both only sort past runs into groups that resemble each other. A wrong word costs precision, never correctness: the ranges come from what was measured.
"""

from __future__ import annotations

import re
from typing import Final

GENERAL: Final = "general"
COMMAND: Final = "command"
CATEGORIES: Final = ("code", "analysis", "architecture", "calculation", "explanation", "creative", "data", "test", GENERAL)
COMPLEXITIES: Final = ("trivial", "low", "medium", "high")

READ_LIMIT: Final = 20_000  # characters; what a prompt wants stands at its beginning or its end, and material lies in between

# The first of them counts most: "Explain this function" explains, whatever else it names.
_WORDS: Final[dict[str, str]] = {
    "code": "implement implements code refactor rename fix bug function class method module script endpoint api compile build port migrate "
    "commit patch debug import lint type-check typecheck",
    "analysis": "analyse analyze analysis review audit investigate examine compare evaluate assess summarise summarize summary inspect diagnose find",
    "architecture": "architecture design plan propose structure layers diagram tradeoff tradeoffs specification spec roadmap",
    "calculation": "calculate compute sum average percent percentage factorial fibonacci prime primes equation solve integral multiply divide",
    "explanation": "explain describe what why how define clarify teach tutorial document docstring readme",
    "creative": "story poem haiku essay song lyrics slogan joke novel creative imagine greet greeting",
    "data": "data csv json table dataframe database sql query dataset spreadsheet parquet schema chart plot rows columns",
    "test": "test tests pytest unittest coverage regression hypothesis",
}
_CATEGORY: Final = {word: name for name, words in _WORDS.items() for word in words.split()}
_HEAVY: Final = frozenset({
    "refactor", "migrate", "rewrite", "redesign", "architecture", "entire", "whole", "every", "all", "codebase", "repository", "project", "implement",
    "end-to-end", "comprehensive", "thorough", "exhaustive", "investigate", "port",
})  # fmt: skip
_WORD: Final = re.compile(r"[a-z][a-z-]*[a-z]|[a-z]")
_STEP: Final = re.compile(
    r"(?m)^[^\S\n]*(?:\d{1,3}[.)]|[-*•])[^\S\n]+\S"
)  # within a line: ten thousand empty ones must not cost their square
_PROGRAM: Final = re.compile(r"[a-z][a-z0-9_.-]{0,23}\Z")

_OPENING: Final = 3  # the first word of a prompt that is one of these counts so often
_LENGTHS: Final = (200, 1_000, 4_000)  # characters: a sentence, a paragraph, a page


def kind_of(text: str, *, agent: str = "claude") -> tuple[str, str]:
    """Category and complexity of a prompt; of a command the program that it begins with.

    Parameters
    ----------
    text : str
    agent : str
        ``"shell"``: the text is a command.

    Returns
    -------
    tuple of str
        One of `CATEGORIES` (for a command ``"command"`` or ``"command:make"``) and one of `COMPLEXITIES`.
    """
    half = READ_LIMIT // 2
    read = text if len(text) <= READ_LIMIT else text[:half] + text[-half:]
    if agent == "shell":
        return _program(read), _complexity(len(text), read.count("\n") + read.count("|") + read.count("&&"), 0)
    words: list[str] = _WORD.findall(read.lower())
    return _category(words), _complexity(len(text), len(_STEP.findall(read)), sum(word in _HEAVY for word in set(words)))


def _program(text: str) -> str:
    first = next(iter(text.split(None, 1)), "").rsplit("/", 1)[-1]
    return f"{COMMAND}:{first}" if _PROGRAM.match(first) else COMMAND


def _category(words: list[str]) -> str:
    points: dict[str, int] = {}
    for word in words:
        if (name := _CATEGORY.get(word)) is not None:
            points[name] = points.get(name, 0) + (1 if points else _OPENING)
    return max(points, key=lambda name: (points[name], -CATEGORIES.index(name)), default=GENERAL)


def _complexity(length: int, steps: int, heavy: int) -> str:
    points = sum(length > bound for bound in _LENGTHS) + (steps >= 3) + (steps >= 8) + min(heavy, 2)  # noqa: PLR2004 - a few steps, many steps
    return COMPLEXITIES[min(points, len(COMPLEXITIES) - 1)]
