"""Answers on their way to an agent: tied to their question, given once, by whoever owns the run; and refused at once where nobody can give one.

An answer goes over the run's control socket, which only the owner's user can reach; its supervisor takes one for each question, and writes down who gave it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, cast

import anyio
import msgspec

from cc_executor.agents.claude.control import answer_line, unsupported_line
from cc_executor.errors import ControlFailed, InvalidRequest
from cc_executor.model.ask import Answer, Ask, Decision, what_of
from cc_executor.model.event import HostAsked, QuestionAsked
from cc_executor.model.fold import advance_all
from cc_executor.model.request import RunRequest
from cc_executor.model.state import RunState
from cc_executor.policy.ask import Answerer, message_for_agent, note_of
from cc_executor.runtime.askpage import line_of
from cc_executor.runtime.control import Status, command
from cc_executor.runtime.errand import in_thread, is_cancelled
from cc_executor.runtime.reader import replay
from cc_executor.runtime.run import Batch, Run
from cc_executor.store.journal import RunFolder

logger = logging.getLogger(__name__)

# What a person's own code may return for a question: a word, a yes or no, the answers; or an `Answer`.
AskCallback = Callable[[Ask], "Awaitable[object] | object"]
CLOSED: Final = "That question is not open any more: it was answered, taken back, or the run has gone on or ended."


def give(folder: RunFolder, ask: Ask, answer: Answer, *, by: str) -> Status:
    """Answer one question. Blocking, a few milliseconds, and safe in any thread.

    Raises
    ------
    InvalidRequest
        This is no answer to that question.
    ControlFailed
        The run has ended, or the question is not open any more.
    """
    try:
        line = answer_line(ask, answer)
    except ValueError as error:
        raise InvalidRequest(f"This does not answer what the agent asks: {error}.") from None
    return command(folder, "answer", ask=ask.ask_id, data=line, by=by, what=what_of(ask), decision=answer.decision.value, note=answer.note)


def open_asks(folder: RunFolder) -> tuple[Ask, ...]:
    """The questions of a run that wait for an answer, as its journal and its supervisor know them. Blocking.

    Raises
    ------
    ControlFailed
        The run has ended.
    """
    waiting = command(folder, "status").get("asks", ())
    state = RunState()
    for events in replay(folder, agent=folder.request().agent):
        state = advance_all(state, events)
    return tuple(ask for ask in state.asks if ask.ask_id in waiting)


def open_ask(asks: tuple[Ask, ...], ask_id: str) -> Ask:
    """The open question of this id.

    Raises
    ------
    ControlFailed
        There is none.
    """
    found = next((ask for ask in asks if ask.ask_id == ask_id), None)
    if found is None:
        raise ControlFailed(CLOSED)
    return found


def meant_ask(folder: RunFolder, asks: tuple[Ask, ...], beginning: str = "") -> Ask:
    """The open question whose id begins so: leave is given to nothing that was not named, where it could be for several.

    Raises
    ------
    ControlFailed
        There is none.
    InvalidRequest
        There are several.
    """
    found = [ask for ask in asks if ask.ask_id.startswith(beginning)]
    if not found:
        raise ControlFailed(f"Run {folder.run_id} does not ask {'that' if beginning else 'anything'} now.")
    if len(found) > 1:
        cwd = folder.request().cwd
        raise InvalidRequest(
            f"Run {folder.run_id} asks {len(found)} things. Say which one you answer, with `cc-executor answer {folder.run_id} --ask ID`, or answer where the "
            "run is shown:" + "".join(f"\n  {ask.ask_id}  {line_of(ask, cwd=cwd)}" for ask in found)
        )
    return found[0]


def unattended(request: RunRequest) -> None:
    """Whether a run may be started that nobody follows: not with a question that waits for ever.

    Raises
    ------
    InvalidRequest
    """
    if request.ask and request.limits.wall is None:
        raise InvalidRequest(
            "Nobody follows this run, so a question could wait for ever: give --timeout, too, and answer with `cc-executor answer`; or leave out --ask."
        )


async def refuse(run: Run, ask: Ask, who: Answerer) -> None:
    """Tell the agent that nobody can answer."""
    answer = Answer(decision=Decision.REFUSED, text=message_for_agent(who))
    fields = {
        "ask": ask.ask_id,
        "data": answer_line(ask, answer),
        "what": what_of(ask),
        "decision": answer.decision.value,
        "note": note_of(who),
    }
    with suppress(ControlFailed):  # it has ended, or somebody was faster
        await in_thread(partial(command, run.folder, "answer", by="cc_executor", **fields))


class Attendant:
    """Looks after the questions of one run, for the one who owns it: each is put to whoever can answer, or refused at once.

    Parameters
    ----------
    run : Run
    who : callable
        Says, when a question has come, whether somebody can answer it here.
    ask : callable or None
        Puts a question to somebody; called once for each, must return at once. None: it is shown already, by a view.
    withdraw : callable or None
        Called with the id of a question that was put to somebody and is not open any more.
    refuses : bool
        Whether to refuse what nobody can answer here. Who only watches leaves that to the owner, and puts no question that is only read of again.
    """

    def __init__(
        self,
        run: Run,
        who: Callable[[], Answerer],
        *,
        ask: Callable[[Ask], object] | None = None,
        withdraw: Callable[[str], None] | None = None,
        refuses: bool = True,
    ) -> None:
        self._run = run
        self._refuses = refuses
        self._who = who
        self._ask = ask
        self._withdraw = withdraw
        self._seen: dict[str, None] = {}
        self._put: dict[str, None] = {}

    async def attend(self, batch: Batch) -> None:
        """Look at what has happened. Nothing to do for a run that does not ask."""
        if not self._run.request.ask:
            return
        for event in batch.events:
            if isinstance(event, HostAsked) and event.ask_id not in self._seen:
                self._seen[event.ask_id] = None
                await self._decline(event)
        still = {ask.ask_id for ask in batch.state.asks}
        for ask in batch.state.asks:
            if ask.ask_id not in self._seen:
                self._seen[ask.ask_id] = None
                who = self._who()
                if not who.is_there:
                    if self._refuses:
                        await refuse(self._run, ask, who)
                elif self._ask is not None and (self._refuses or await self._is_open(ask)):
                    self._put[ask.ask_id] = None
                    self._ask(ask)
        for ask_id in [each for each in self._put if each not in still]:
            del self._put[ask_id]
            if self._withdraw is not None:
                self._withdraw(ask_id)

    async def _is_open(self, ask: Ask) -> bool:
        try:
            status = await in_thread(lambda: command(self._run.folder, "status"))
        except ControlFailed:
            return False
        return ask.ask_id in status.get("asks", ())

    async def _decline(self, ask: HostAsked) -> None:
        fields: dict[str, Any] = {"ask": ask.ask_id, "data": unsupported_line(ask), "what": ask.what}
        with suppress(ControlFailed):
            await in_thread(partial(command, self._run.folder, "answer", by="cc_executor", decision=Decision.REFUSED.value, **fields))


# --- Python code that answers -------------------------------------------------------------------------------------------


@asynccontextmanager
async def attended(
    run: Run, who: Answerer, on_ask: AskCallback | None, *, by: str = "python", refuses: bool = True
) -> AsyncGenerator[Attendant]:
    """An attendant whose questions go to `on_ask`, each beside everything else that goes on. `refuses`: as for `Attendant`."""
    if on_ask is None or not run.request.ask:
        yield Attendant(run, lambda: who, refuses=refuses)
        return
    callback, failure = on_ask, None
    scopes: dict[str, anyio.CancelScope] = {}

    async def put(ask: Ask) -> None:
        with anyio.CancelScope() as scopes[ask.ask_id]:
            await _put_to(callback, run, ask, by=by)

    def withdraw(ask_id: str) -> None:
        scopes.pop(ask_id, anyio.CancelScope()).cancel()

    async with anyio.create_task_group() as tasks:
        try:
            yield Attendant(run, lambda: who, ask=lambda ask: tasks.start_soon(put, ask), withdraw=withdraw, refuses=refuses)
        except Exception as error:  # noqa: BLE001 - carried out of the task group, which would wrap it
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _put_to(callback: AskCallback, run: Run, ask: Ask, *, by: str) -> None:
    try:
        if inspect.iscoroutinefunction(callback):
            said: object = await callback(ask)
        else:
            said = await in_thread(lambda: callback(ask), takes_long=True)  # it may ask a person, and the loop goes on meanwhile
            if inspect.isawaitable(said):
                said = await said
        answer = understood(ask, said)
        answer_line(ask, answer)
    except (
        SystemExit,
        asyncio.CancelledError,
        Exception,
    ) as error:  # the user's own code: the agent is owed an answer, the developer the trace
        if isinstance(error, asyncio.CancelledError) and is_cancelled():
            raise
        logger.exception("on_ask failed for %s", what_of(ask))
        answer = Answer(decision=Decision.DENY, text=f"The code that was to answer failed ({type(error).__name__}). Go on without it.")
    with suppress(ControlFailed):  # somebody was faster, or the run has ended
        await in_thread(lambda: give(run.folder, ask, answer, by=by))


def understood(ask: Ask, said: object) -> Answer:
    """The answer that a callback's value means.

    False and None deny. To a request for leave, True and ``"allow"`` allow once, ``"allow_run"`` for the run, and any other text is a reason to deny. To
    a question, a text is the answer, and True is none; several questions take a list, or a dict by their texts, and several choices a list. To deny a
    question with a reason, return an `Answer`.

    Raises
    ------
    ValueError
        It means nothing here.
    """
    if isinstance(said, Answer):
        return msgspec.convert(
            msgspec.to_builtins(said), Answer
        )  # a struct takes whatever it is made with: a word, or none of the decisions
    if said is None or said is False:
        return Answer(decision=Decision.DENY)
    if isinstance(ask, QuestionAsked):
        return _answers(ask, said)
    if said is True or said == Decision.ALLOW:
        return Answer(decision=Decision.ALLOW)
    if said == Decision.ALLOW_RUN:
        return Answer(decision=Decision.ALLOW_RUN)
    if isinstance(said, str):
        return Answer(decision=Decision.DENY, text="" if said == Decision.DENY else said)
    raise ValueError(f"{said!r} is no answer")


def _answers(ask: QuestionAsked, said: object) -> Answer:
    values: list[object]
    if isinstance(said, dict):
        known = cast("dict[object, object]", said)
        values = [known.get(question.text, known.get(question.name or question.header)) for question in ask.questions]
    elif isinstance(said, list | tuple):
        values = list(cast("list[object]", said))
    else:
        values = [said]
    return Answer(decision=Decision.ANSWER, answers=tuple(_text(value, is_form=not ask.tool_id) for value in values))


def _text(value: object, *, is_form: bool) -> str:
    """An answer in words: several choices as the agent's own dialog joins them, a yes or no as a form takes it."""
    if isinstance(value, list | tuple):
        return ", ".join(_text(each, is_form=is_form) for each in cast("list[object]", value))
    if value is None:
        return ""
    if isinstance(value, bool) and is_form:
        return str(value).lower()
    if isinstance(value, bool) or not isinstance(value, str | int | float):  # an option instead of its label, say
        raise ValueError(f"{value!r} answers no question")
    return str(value)
