"""A cell's line and body, turned into what is to be run. Reads the notebook's variables and the settings; starts nothing."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cc_executor.api import make_request
from cc_executor.errors import InvalidRequest
from cc_executor.kernel.config import CCExecutor
from cc_executor.kernel.options import parse
from cc_executor.kernel.variables import filled
from cc_executor.model.request import RunRequest
from cc_executor.model.toollist import split_tools
from cc_executor.rehearsal import scripts


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One cell's wish."""

    request: RunRequest
    out: str | None
    once: bool
    background: bool
    raise_error: bool
    rehearse_without_login: str | None = None


def order_of(line: str, body: str, *, settings: CCExecutor, namespace: Mapping[str, Any]) -> Order:
    """The order that a cell gives.

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
    if options.out is not None and not options.out.isidentifier():
        raise InvalidRequest(f"-o needs a variable's name, not {options.out!r}.")
    if options.rehearse_without_login is not None:
        scripts.load(options.rehearse_without_login)  # raises InvalidRequest with the names that there are
    request = make_request(
        prompt,
        agent=options.agent or settings.agent,
        cwd=_path(options.cwd or settings.cwd),
        timeout=_given(options.timeout, settings.timeout),
        stall_timeout=_given(options.stall_timeout, settings.stall_timeout),
        max_cost=_given(options.max_cost, settings.max_cost),
        max_turns=_given(options.max_turns, settings.max_turns),
        linger=_given(options.linger, settings.linger),
        tools=split_tools(options.tools) if options.tools is not None else tuple(settings.tools),
        add_dirs=[_path(name) for name in options.add_dirs or ()],
        expect=options.expect or (),
        schema=_schema(options.schema, namespace),
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
        label=options.label or "",
    )
    return Order(
        request=request,
        out=options.out,
        once=options.once,
        background=options.bg,
        raise_error=settings.raise_error and not options.no_raise_error,
        rehearse_without_login=options.rehearse_without_login,
    )


def _given(option: float | None, setting: float | None) -> Any:
    return setting if option is None else option


def _filled_option(value: Any, namespace: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return filled(value, namespace)
    if isinstance(value, list):
        return [filled(str(item), namespace) for item in value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - argparse is untyped
    return value


def _path(name: str | None) -> Any:
    return None if name is None else os.path.expanduser(os.path.expandvars(name))


def _schema(name: str | None, namespace: Mapping[str, Any]) -> Any:
    if name is None:
        return None
    if name not in namespace:
        raise InvalidRequest(
            f"--schema names the variable {name!r}, which is not defined: assign a JSON Schema (dict) or a pydantic model class to it first."
        )
    return namespace[name]
