"""Who can answer an agent's questions: a table over where the run is followed. Knows no screen, no kernel and no process.

Nobody is waited for who cannot come. Where nobody can answer, the agent is told so at once, and the receipt says how somebody could have.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec


class Place(StrEnum):
    """Where a run is followed by whoever owns it."""

    CALLBACK = "callback"  # Python code that was given `on_ask`
    TERMINAL = "terminal"  # somebody sits at it
    VIEW = "view"  # a live view, or a notebook whose front end a person uses
    PIPE = "pipe"  # a terminal command whose input or output is no terminal
    HEADLESS = "headless"  # a kernel that executes a notebook for a program (nbclient, papermill)
    CAPTURED = "captured"  # a cell that shows nothing before its end
    PYTHON = "python"  # Python code without `on_ask`
    LIST = "list"  # a task list without a live view
    CLIENT = "client"  # a program, over MCP, that cannot put a question to a person


class Answerer(msgspec.Struct, frozen=True):
    """Whether somebody can answer here; if not, why."""

    place: Place
    refusal: str = ""

    @property
    def is_there(self) -> bool:
        """Whether a question is put to somebody, instead of being refused."""
        return not self.refusal


_REFUSALS: Final[Mapping[str, str]] = {
    Place.PIPE: "the command runs without a terminal",
    Place.HEADLESS: "the notebook is executed without anybody at its front end",
    Place.CAPTURED: "the cell shows nothing before its end",
    Place.PYTHON: "the code that started it gave no on_ask",
    Place.LIST: "its task list runs without a live view",
    Place.CLIENT: "the program that started it cannot ask anybody",
}
_CURES: Final[Mapping[str, str]] = {
    Place.PIPE: "run it in a terminal",
    Place.HEADLESS: "run the cell in JupyterLab",
    Place.CAPTURED: "run the cell without %%capture",
    Place.PYTHON: "pass on_ask=",
    Place.LIST: "run the list in a notebook",
    Place.CLIENT: "start it from an MCP client with elicitation",
}


def answerer(place: Place) -> Answerer:
    """Who answers at `place`."""
    return Answerer(place, _REFUSALS.get(place, ""))


def in_kernel(*, is_shown: bool, takes_input: bool, was_looked_at: bool) -> Answerer:
    """Who answers where a notebook runs the cell.

    Parameters
    ----------
    is_shown : bool
        The run has a view of its own before its end.
    takes_input : bool
        The front end says that it can ask a person for input (`allow_stdin` of the execute request): JupyterLab and consoles do, nbclient and papermill do not.
    was_looked_at : bool
        A page has opened the run's view, whatever the front end says.
    """
    if not is_shown:
        return answerer(Place.CAPTURED)
    return answerer(Place.VIEW if takes_input or was_looked_at else Place.HEADLESS)


def in_terminal(*, reads: bool, shows: bool) -> Answerer:
    """Who answers a command's or a terminal IPython's run; `reads`, `shows`: its input and its output are a terminal."""
    return answerer(Place.TERMINAL if reads and shows else Place.PIPE)


def message_for_agent(who: Answerer) -> str:
    """What the agent is told in the place of an answer."""
    return f"Nobody can answer: {who.refusal}. Go on without it, or say in the end what it was needed for. Do not ask again."


def note_of(who: Answerer) -> str:
    """What is written down of a refusal."""
    return who.place.value


def cure_of(note: str, tools: str) -> str:
    """How somebody could have answered, from what was written down of the refusal, or how it is not asked at all. `tools`: what was asked for."""
    known = _CURES.get(note, "run it where somebody can answer")
    allowed = f', or allow it beforehand with --tools "{tools}"' if tools else ""
    return f"{known[0].upper()}{known[1:]}{allowed}."


def why_of(note: str) -> str:
    """Why nobody could answer, from what was written down."""
    return _REFUSALS.get(note, "nobody was there")
