"""The recordings of real agents: their output, exactly, and how the process ended (tests/recordings/INDEX.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from cc_executor.agents.claude.decode import ClaudeDecoder
from cc_executor.model.event import AgentEvent, Event, TextWritten
from support.environments import CHECKOUT

FOLDER: Final = CHECKOUT / "tests" / "recordings"
_OTHER_AGENTS: Final = ("20", "21", "30")  # Codex, Gemini CLI, an agent of the Agent Client Protocol


@dataclass(frozen=True, slots=True)
class Recording:
    name: str

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.jsonl"

    @property
    def stdout(self) -> bytes:
        return self.path.read_bytes()

    @property
    def meta(self) -> dict[str, Any]:
        return json.loads((FOLDER / f"{self.name}.meta.json").read_bytes())

    @property
    def is_claude(self) -> bool:
        return not self.name.startswith(_OTHER_AGENTS)

    def __str__(self) -> str:
        return self.name


def _names(pattern: str) -> list[str]:
    return sorted(path.name.removesuffix(".jsonl") for path in FOLDER.glob(pattern))


# Their last event may be anything: what counts is that they are Claude's own lines.
CLAUDE: Final = [Recording(name) for name in _names("*.jsonl") if not name.endswith(".exchange") and Recording(name).is_claude]
OTHERS: Final = [Recording(name) for name in _names("*.jsonl") if not name.endswith(".exchange") and not Recording(name).is_claude]
EXCHANGES: Final = [Recording(name) for name in _names("*.exchange.jsonl")]


def together(events: Iterable[Event]) -> list[Event]:
    """The same with neighbouring pieces of one text as one event: how many there are depends on how the bytes came."""
    found: list[Event] = []
    for event in events:
        last = found[-1] if found else None
        if (
            isinstance(event, TextWritten)
            and isinstance(last, TextWritten)
            and not (event.whole or last.whole)
            and event.block == last.block
        ):
            found[-1] = replace(last, text=last.text + event.text, pieces=last.pieces + event.pieces)
        else:
            found.append(event)
    return found


@cache
def events_of(name: str) -> tuple[AgentEvent, ...]:
    """The events of a recording of Claude, decoded in one piece."""
    decoder = ClaudeDecoder()
    return (*decoder.feed(Recording(name).stdout), *decoder.close())
