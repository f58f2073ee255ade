"""Who looks after the questions of a run that an MCP client has started, in the server that starts it and in every later one. Knows neither the SDK nor tornado."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Final

import anyio

from cc_executor.model.ask import Answer, Ask, Decision
from cc_executor.policy.ask import Place, answerer, message_for_agent
from cc_executor.runtime.answers import Attendant, attended
from cc_executor.runtime.run import Run
from cc_executor.store.journal import RunFolder
from cc_executor.store.plain import read_plain

WAIT: Final = 600.0  # seconds; longer than a person takes who sits there, and no agent waits for one who has left
BY: Final = "mcp"
NOBODY: Final = Answer(decision=Decision.REFUSED, text=message_for_agent(answerer(Place.CLIENT)))
_MARK: Final = "attendance"  # in the run's folder
_WORD_LIMIT: Final = 100  # bytes

# Who looks after the questions of a run's agent, for as long as the run is followed.
Attend = Callable[[Run], AbstractAsyncContextManager[Attendant]]


def attend_at(place: Place) -> Attend:
    """Who does, for a client that can put a question to a person (`Place.CALLBACK`), or cannot (`Place.CLIENT`)."""
    return partial(_attendance, place=place)


def _attendance(run: Run, *, place: Place) -> AbstractAsyncContextManager[Attendant]:
    async def waiting(_: Ask) -> Answer:  # is cancelled when somebody has answered
        await anyio.sleep(WAIT)
        return NOBODY

    return attended(run, answerer(place), waiting if answerer(place).is_there else None, by=BY)


def keep(folder: RunFolder, place: Place) -> None:
    """Write down, before the run begins, that its questions are looked after: a server that dies leaves them to the next. Raises `StateUnusable`."""
    folder.write_new(_MARK, place.value.encode())


def kept(folder: RunFolder) -> Attend | None:
    """Who looks after the questions of a run that another server has started; None where that is nobody's duty."""
    with suppress(OSError, ValueError):  # there is no mark, or it was damaged
        return attend_at(Place(read_plain(folder.path / _MARK, _WORD_LIMIT).decode()))
    return None
