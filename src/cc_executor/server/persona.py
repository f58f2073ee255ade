"""A persona of jupyter-ai 3: a message in a chat is the prompt of a run, whose text is streamed into the chat. Entry point group ``jupyter_ai.personas``.

Each message is a run of its own, with a fresh context, under the server's rules. A chat says who has sent a message, and does not know it: any client may
write any name there. So where a server tells people apart by their names, nothing is run.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, Final

from cc_executor.errors import CCExecutorError
from cc_executor.model.event import TextWritten
from cc_executor.model.notice import duration, money
from cc_executor.model.receipt import Receipt
from cc_executor.runtime.run import Run
from cc_executor.server.app import running_here
from cc_executor.server.pieces import LOOK
from cc_executor.server.refusal import Refused
from cc_executor.server.service import Service

NAME: Final = "cc_executor"
BY: Final = "jupyter-ai"
_SWITCHED_OFF: Final = "The server extension is switched off here: `jupyter server extension enable cc_executor`."
_NOBODY_KNOWN: Final = (
    "This server tells people apart, and a chat does not say for certain who writes. "
    "Use a cell (`%%cc_execute`), or the server's own address with a token."
)

_jupyter_ai: Final[Any] = importlib.import_module("jupyter_ai_persona_manager")  # who loads this module has it; nobody else does
_BasePersona: Final[Any] = _jupyter_ai.BasePersona


class CCExecutorPersona(_BasePersona):
    """Answers with what a run writes, and with the id of its receipt."""

    _run_id = ""
    _is_stopped = False

    @property
    def defaults(self) -> Any:
        """How it is shown."""
        return _jupyter_ai.PersonaDefaults(
            name=NAME,
            description="Each message is a run of its own: a fresh agent, a receipt.",
            avatar_path=str(Path(__file__).with_suffix(".svg")),
            system_prompt="",
        )

    async def process_message(self, message: Any) -> None:
        """Run a message. One at a time: jupyter-ai calls this for the next one when it returns."""
        async with aclosing(self._answer(str(message.body))) as answer:
            await self.stream_message(answer)

    async def cancel_response(self) -> None:
        """Somebody has pressed the chat's stop button: a run that waits for its turn, or is just being started, is cancelled as well."""
        self._is_stopped = True
        app = running_here()
        if app is not None and self._run_id:
            with suppress(CCExecutorError):  # it has just ended
                await app.service().control(self._run_id, "cancel", who="")

    async def _answer(self, body: str) -> AsyncGenerator[str]:
        app = running_here()
        if app is None or app.service().is_by_name:
            yield _SWITCHED_OFF if app is None else _NOBODY_KNOWN
            return
        service = app.service()
        failure: Exception | None = None
        run_id = ""
        self._is_stopped = False
        try:
            run_id, _ = await service.execute({"prompt": body.removeprefix(f"@{NAME}").strip(), "label": "chat"}, who="")
            self._run_id = run_id
            if self._is_stopped:
                await self.cancel_response()
            async with aclosing(self._followed(service, run_id)) as pieces:
                async for piece in pieces:
                    yield piece
        except (CCExecutorError, Refused) as error:
            failure = error
            yield service.mask(str(error))
        finally:
            self._run_id = ""
            service.noted(BY, "execute", right="execute", who="", run=run_id, failure=failure)

    async def _followed(self, service: Service, run_id: str) -> AsyncGenerator[str]:
        while (told := await service.lookup.status(run_id, who=""))["status"] == "queued":  # noqa: ASYNC110 - a server's queue has no event
            await asyncio.sleep(LOOK)
        if told.get("why"):  # it was never started
            yield str(told["why"])
            return
        run = await Run.attach(service.home, run_id, environ=service.environ)
        words = _Words()
        async with aclosing(run.follow()) as batches:
            async for batch in batches:
                for event in batch.events:
                    if isinstance(event, TextWritten) and event.parent is None and (piece := words.after(event)):
                        yield piece
        yield _ending(await run.finish())


class _Words:
    """What is still to be written of an agent's texts, which come in pieces and then whole."""

    def __init__(self) -> None:
        self._block = ""
        self._shown = ""

    def after(self, event: TextWritten) -> str:
        """The next words, with an empty line between two texts."""
        gap = ""
        if event.block != self._block:
            gap, self._block, self._shown = "\n\n" if self._block else "", event.block, ""
        if not event.whole:
            self._shown += event.text
            return gap + event.text
        known, self._shown = self._shown, event.text
        return gap + (event.text[len(known) :] if event.text.startswith(known) else f"\n\n{event.text}")


def _ending(receipt: Receipt) -> str:
    outcome = receipt.outcome
    cost = "" if receipt.cost is None or receipt.rehearsed else f" · {money(receipt.cost)}"
    words = [] if outcome.ok else [outcome.summary, outcome.cure]
    head = f"{outcome.kind.value} · {duration(receipt.times.active)}{cost} · receipt `{receipt.run_id}`"
    return "\n\n---\n" + "\n\n".join(filter(None, [*words, head]))
