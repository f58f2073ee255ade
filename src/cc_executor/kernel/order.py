"""A cell's line and body, turned into what is to be run. Reads the notebook's variables and the settings; starts nothing."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from cc_executor.api import make_request, take_care
from cc_executor.errors import InvalidRequest
from cc_executor.kernel.config import CCExecutor
from cc_executor.kernel.lint import looked_over_cell
from cc_executor.kernel.notify import notify_of
from cc_executor.kernel.options import check_out, parse, path_of
from cc_executor.kernel.variables import filled
from cc_executor.model.care import NO_CARE, Care
from cc_executor.model.request import RunRequest
from cc_executor.model.toollist import split_tools

if TYPE_CHECKING:
    from cc_executor.model.notify import Notify


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One cell's wish."""

    request: RunRequest
    out: str | None
    once: bool
    background: bool
    raise_error: bool
    rehearse_without_login: str | None = None
    care: Care = NO_CARE
    max_cost_per_day: float | None = None
    notify: Notify | None = None
    remarks: str = ""  # what a person is told about the prompt before it is sent


def order_of(line: str, body: str, *, settings: CCExecutor, namespace: Mapping[str, Any], lint: bool = False) -> Order:
    """The order that a cell gives.

    Parameters
    ----------
    lint : bool
        Look the prompt over, also where the line does not say so.

    Raises
    ------
    InvalidRequest
        One sentence with the cure. Nothing was started.
    """
    options = parse(line)
    prompt = body.removesuffix("\n")  # IPython ends every cell with one
    if options.vars:
        prompt = filled(prompt, namespace)
        options = argparse.Namespace(**{name: _filled_option(value, namespace) for name, value in vars(options).items()})
    check_out(options.out)
    without_login = options.rehearse_without_login
    if without_login is not None:
        from cc_executor.rehearsal import scripts  # here: few runs are rehearsals

        without_login = scripts.whole(without_login)
        scripts.load(without_login)  # raises InvalidRequest with the names that there are
    looked = looked_over_cell(prompt, options, settings=settings, namespace=namespace, is_asked=lint)
    request = make_request(
        looked.prompt,
        agent=options.agent or settings.agent,
        cwd=_path((settings.cwd or None) if options.cwd is None else options.cwd),
        timeout=_given(options.timeout, settings.timeout),
        stall_timeout=_given(options.stall_timeout, _stall_of(settings, options.agent or settings.agent)),
        max_cost=_given(options.max_cost, settings.max_cost),
        max_turns=_given(options.max_turns, settings.max_turns),
        linger=_given(options.linger, settings.linger),
        journal_limit=options.journal_limit or settings.journal_limit,
        tools=split_tools(options.tools) if options.tools is not None else tuple(settings.tools),
        add_dirs=[_path(name) for name in options.add_dirs or ()],
        expect=options.expect or (),
        schema=_schema(options.schema, namespace),
        ask=options.ask or (settings.ask and (options.agent or settings.agent) == "claude"),
        rehearse=options.rehearse,
        on_kernel_exit="continue" if options.bg else settings.on_kernel_exit,
        model=options.model or settings.model,
        fallback_model=options.fallback_model,
        permission_mode=options.permission_mode or settings.permission_mode,
        resume=options.resume,
        append_system_prompt=options.append_system_prompt,
        verify=options.verify,
        cli=options.cli or settings.cli,
        shell=options.shell,
        env_names=(*settings.env, *(options.env_names or ())),
        keep_background=options.keep_background,
        trust_workspace=options.trust_workspace,
        loop_guard=options.loop_guard or settings.loop_guard,
        undo=options.undo if options.undo is not None or settings.undo else False,
        label=options.label or "",
        amended=looked.amended,
    )
    given: dict[str, Any] = {
        "on_limit": options.on_limit or settings.on_limit,
        "limit_wait_max": _given(options.limit_wait_max, settings.limit_wait_max),
        "on_output_limit": options.on_output_limit,
        "reask": options.reask or None,
        "max_cost_per_day": _given(options.max_cost_per_day, settings.max_cost_per_day),
        "schema": options.schema,
    }
    care, day = take_care(given)
    if options.bg and (options.on_limit == "wait" or options.on_output_limit not in {None, "stop"} or options.reask):
        raise InvalidRequest("Nobody is there to make further attempts of a --bg run: leave --bg out, or make it a task of %%cc_tasks.")
    return Order(
        request=request,
        care=care,
        max_cost_per_day=day,
        notify=notify_of(settings, options),
        out=options.out,
        once=options.once,
        background=options.bg,
        raise_error=settings.raise_error and not options.no_raise_error,
        rehearse_without_login=without_login,
        remarks=looked.said,
    )


def _stall_of(settings: CCExecutor, agent: str) -> float:
    """Seconds; 0 for no limit. What nobody has set is for agents: a command may be silent for as long as it works, as it may elsewhere."""
    is_set = settings.stall_timeout != CCExecutor.class_traits()["stall_timeout"].default()
    return (settings.stall_timeout or 0) if is_set or agent != "shell" else 0


def _given(option: float | None, setting: float | None) -> Any:
    return setting if option is None else option


def _filled_option(value: Any, namespace: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return filled(value, namespace)
    if isinstance(value, list):
        return [filled(str(item), namespace) for item in value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - argparse is untyped
    return value


def _path(name: str | None) -> Any:
    return None if name is None else path_of(name)


def _schema(name: str | None, namespace: Mapping[str, Any]) -> Any:
    if name is None:
        return None
    if name not in namespace:
        raise InvalidRequest(
            f"--schema names the variable {name!r}, which is not defined: assign a JSON Schema (dict) or a pydantic model class to it first."
        )
    return namespace[name]
