"""Lists of tools as users write them. Knows commas and parentheses; knows no tool."""

from __future__ import annotations


def split_tools(text: str) -> tuple[str, ...]:
    """`"Bash(git log, git diff),Write"` at the commas that stand outside parentheses."""
    parts, depth, start = list[str](), 0, 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return tuple(part.strip() for part in [*parts, text[start:]] if part.strip())
