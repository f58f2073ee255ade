"""What a run is doing, in one word: the words that every view, list and terminal puts into its own."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """What a run is doing, in one word."""

    QUEUED = "queued"
    STARTING = "starting"
    REQUESTING = "requesting"  # asked the API, which has not answered yet
    THINKING = "thinking"
    WRITING = "writing"
    TOOL = "tool"
    RETRYING = "retrying"
    WAITING = "waiting"  # for leave to use a tool, or, after its closing statement, for background work
    ASKING = "asking"  # a person is to answer
    PAUSED = "paused"
    STOPPING = "stopping"
    ENDED = "ended"
