"""What the agent of a run asks, put to the person behind an MCP client. Knows the SDK's elicitation; what an answer means is `cc_executor.model.ask`'s.

A question is put while the client follows the run (`results`, `status`, `monitor`), so that it comes on a stream that somebody reads. A client that cannot ask anybody
has its runs' questions refused at once; one that can and does not follow has them refused after a while.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from cc_executor.errors import ControlFailed, InvalidRequest
from cc_executor.model.ask import Answer, Ask, Decision
from cc_executor.model.event import Question, QuestionAsked
from cc_executor.policy.redact import Redactor, secret_values
from cc_executor.runtime.answers import give
from cc_executor.runtime.askpage import shown
from cc_executor.runtime.errand import in_thread
from cc_executor.server.attendance import BY, NOBODY
from cc_executor.server.pieces import LOOK
from cc_executor.server.service import Service

REMEMBERED: Final = 100  # answers; each matters for as long as its run's journal is not read up to it
FORMS_SINCE: Final = "2025-11-25"  # before, forms had no lists, and choices had another notation

Context = ServerRequestContext[Any]


def can_ask(ctx: Context) -> bool:
    """Whether the client can put a form to a person."""
    able = ctx.session.client_capabilities
    if able is None or able.elicitation is None or (able.elicitation.form is None and able.elicitation.url is not None):
        return False
    return ctx.session.can_send_request or ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


def _client(ctx: Context) -> int:
    """What tells a client from others for as long as it is being asked something."""
    # The only way in mcp 2.3 to what lasts as long as the client. With a version that has it elsewhere, a client may be asked twice, and no more.
    return id(getattr(ctx.session, "_connection", ctx.session))


class Elicitor:
    """Puts the questions of runs to clients that follow them, each once to each: one of them may be gone, and nobody can tell for minutes."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._asking: set[tuple[int, str]] = set()
        self._given: deque[str] = deque(maxlen=REMEMBERED)
        self._mask = Redactor(secret_values(service.environ)).text

    async def settle(self, ctx: Context, run_id: str, *, who: str, said: Mapping[str, Any]) -> types.InputRequiredResult | None:
        """Have what is open now answered by the client's user.

        Parameters
        ----------
        run_id : str
            A run that `who` may see.
        said : mapping
            What the client brings along for an `InputRequiredResult`, by the id of the question.

        Returns
        -------
        InputRequiredResult or None
            What to answer a client with that has to be asked so (from protocol 2026-07-28 on, a server sends no requests).
        """
        if not can_ask(ctx):
            return None
        open_here = [
            ask
            for ask in self._service.lookup.asks(run_id)
            if (_client(ctx), ask.ask_id) not in self._asking and ask.ask_id not in self._given
        ]
        if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            for ask in open_here:
                await self._put(ctx, run_id, ask, who=who)
            return None
        left: dict[str, types.ElicitRequest] = {}
        for ask in open_here:
            answer = said.get(ask.ask_id)
            if isinstance(answer, types.ElicitResult):
                await self._give(run_id, ask, answer, who=who)
            else:
                left[ask.ask_id] = types.ElicitRequest(params=await in_thread(partial(self._form, ctx, run_id, ask, who=who)))
        return types.InputRequiredResult(input_requests={**left}) if left else None

    async def _put(self, ctx: Context, run_id: str, ask: Ask, *, who: str) -> None:
        form = await in_thread(partial(self._form, ctx, run_id, ask, who=who))
        said: types.ElicitResult | None = None

        async def put() -> None:
            nonlocal said
            try:
                said = await ctx.session.elicit_form(form.message, form.requested_schema, ctx.request_id)
            except MCPError:  # the client could not, whatever it has said of itself
                said = types.ElicitResult(action="cancel")
            tasks.cancel_scope.cancel()

        with self._at_it(_client(ctx), ask):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(put)
                while ask in self._service.lookup.asks(run_id):  # noqa: ASYNC110 - the journal tells, which is looked at as everywhere
                    await anyio.sleep(LOOK)
                tasks.cancel_scope.cancel()  # answered elsewhere, or the run has ended
            if said is not None:
                await self._give(run_id, ask, said, who=who)

    @contextmanager
    def _at_it(self, client: int, ask: Ask) -> Generator[None]:
        self._asking.add((client, ask.ask_id))
        try:
            yield
        finally:
            self._asking.discard((client, ask.ask_id))

    async def _give(self, run_id: str, ask: Ask, said: types.ElicitResult, *, who: str) -> None:
        self._given.append(ask.ask_id)  # until the journal says so, too, which takes a moment
        folder = await in_thread(partial(self._service.lookup.find, run_id, who=who))
        with suppress(ControlFailed):  # somebody was faster, or the run has ended
            try:
                await in_thread(partial(give, folder, ask, answer_of(ask, said), by=BY))
            except InvalidRequest:  # a form that was sent back without what it asks for
                await in_thread(partial(give, folder, ask, Answer(decision=Decision.DENY, text="No answer was given."), by=BY))

    def _form(self, ctx: Context, run_id: str, ask: Ask, *, who: str) -> types.ElicitRequestFormParams:
        is_new = ctx.protocol_version >= FORMS_SINCE
        page = shown(ask, cwd=self._service.lookup.find(run_id, who=who).request().cwd, mask=self._mask)
        if isinstance(ask, QuestionAsked):
            text = f"{page.title} asks, in run {run_id}:\n" + "\n".join(each.text for each in page.questions)
            return types.ElicitRequestFormParams(message=text, requested_schema=form_of(page.questions, is_new=is_new))
        decision = _choice({"allow": "Allow once", "allow_run": f"Allow for this run: {page.scope}", "deny": "Deny"}, is_new=is_new)
        fields = {
            "decision": {"title": "Decision", **decision},
            "reason": {"type": "string", "title": "Reason", "description": "Why it is denied; the agent sees it."},
        }
        about = f" ({page.about})" if page.about else ""
        text = f"The agent of run {run_id} asks for leave to use {page.title}{about}:\n{page.body}"
        return types.ElicitRequestFormParams(message=text, requested_schema=_object(fields, "decision"))


def _object(fields: dict[str, dict[str, Any]], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(required)}


def form_of(questions: Sequence[Question], *, is_new: bool) -> dict[str, Any]:
    """The schema of a form with a field for each question, `answer_1` and so on; `is_new`: in the notation of `FORMS_SINCE`."""
    named = {f"answer_{number}": each for number, each in enumerate(questions, 1)}
    required = [name for name, each in named.items() if not each.optional]
    return _object({name: _field(each, is_new=is_new) for name, each in named.items()}, *required)


def _choice(words: Mapping[str, str], *, is_new: bool) -> dict[str, Any]:
    if is_new:
        return {"type": "string", "oneOf": [{"const": word, "title": title} for word, title in words.items()]}
    return {"type": "string", "enum": list(words), "enumNames": list(words.values())}


def _field(question: Question, *, is_new: bool) -> dict[str, Any]:
    labels = [option.label for option in question.options]
    told = [f"{option.label}: {option.description}" if option.description else option.label for option in question.options]
    about = {"title": question.header or question.name or "Answer", "description": "\n".join([question.text, *told])}
    if not labels or (question.multiple and not is_new):
        return {"type": "string", **about}
    if question.multiple:
        return {"type": "array", **about, "items": {"type": "string", "enum": labels}, "minItems": 1}
    return {"type": "string", **about, "enum": labels}


def answer_of(ask: Ask, said: types.ElicitResult) -> Answer:
    """What a form that came back means: declined is denied, and closed without a choice is nobody's answer."""
    if said.action == "cancel":
        return NOBODY
    content = said.content or {}
    if said.action == "decline":
        return Answer(decision=Decision.DENY)
    if isinstance(ask, QuestionAsked):
        return Answer(decision=Decision.ANSWER, answers=tuple(_text(content.get(f"answer_{n}")) for n in range(1, len(ask.questions) + 1)))
    words = {"allow": Decision.ALLOW, "allow_run": Decision.ALLOW_RUN}
    decision = words.get(str(content.get("decision")), Decision.DENY)
    return Answer(decision=decision, text=_text(content.get("reason")) if decision is Decision.DENY else "")


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType] - texts, by the SDK's model
    return "" if value is None else str(value)
