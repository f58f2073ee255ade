"""Every default of the magic as a traitlet, the same from environment variables. `%config CCExecutor` shows and sets them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Final

from traitlets import Bool, Dict, Enum, Float, Int, List, TraitError, TraitType, Unicode, validate
from traitlets.config import Configurable

from cc_executor.errors import InvalidRequest
from cc_executor.model.number import is_finite

PREFIX: Final = "CC_EXECUTOR_"
_NO_LIMIT: Final = "a number greater than 0, or None for no limit"
_BOUNDS: Final = {  # what a value must be besides what its trait says
    "timeout": _NO_LIMIT,
    "max_cost": _NO_LIMIT,
    "max_cost_per_day": _NO_LIMIT,
    "max_turns": "a number, 1 or more, or None for no limit",
    "stall_timeout": "a number greater than 0, or 0 or None for no limit",
    "linger": "a number greater than 0",
    "limit_wait_max": "a number greater than 0",
    "journal_limit": "a size such as 20GB or 500MB, or none for no limit",
    "lint_off": "ids of lint rules, which `cc-executor lint --rules` prints, or all",
}


class CCExecutor(Configurable):
    """Defaults of `%%cc_execute`. What a cell says wins over `%config`, that over a configuration file, that over the environment."""

    agent = Unicode("claude", help="The agent: claude or shell.").tag(config=True)
    model = Unicode(None, allow_none=True, help="The agent's model; none: the agent's own default.").tag(config=True)
    permission_mode = Unicode(
        "acceptEdits", help="What the agent may do unasked: acceptEdits, default, plan, dontAsk, bypassPermissions."
    ).tag(config=True)
    tools = List(Unicode(), help="Tools allowed without asking, as the agent writes them; in the environment comma-separated.").tag(
        config=True
    )
    cwd = Unicode(None, allow_none=True, help="Folder in which agents work; none: the kernel's.").tag(config=True)
    cli = Unicode(None, allow_none=True, help="Path of the agent's executable; none: PATH, then the bundled one.").tag(config=True)
    timeout = Float(None, allow_none=True, help="Seconds for a run; none: no limit.").tag(config=True)
    stall_timeout = Float(
        600.0, allow_none=True, help="Seconds without a sign of life; none: no limit. Unless it is set, a command has none."
    ).tag(config=True)
    max_cost = Float(None, allow_none=True, help="US dollars for a run; none: no limit.").tag(config=True)
    max_cost_per_day = Float(
        None,
        allow_none=True,
        help="US dollars for everything that is run on one day; none: no limit. What today's runs have cost is counted.",
    ).tag(config=True)
    on_limit = Enum(("stop", "wait"), "stop", help="What a usage limit with a known end does to a cell.").tag(config=True)
    limit_wait_max = Float(6 * 3600.0, help="Seconds that a usage limit is waited for at most.").tag(config=True)
    loop_guard = Enum(
        ("off", "tell", "stop"), "tell", help="What is done about an agent that makes the same call with the same result again and again."
    ).tag(config=True)
    max_turns = Int(None, allow_none=True, help="Agent turns for a run; none: no limit.").tag(config=True)
    linger = Float(
        60.0, help="Seconds that an agent may stay after its last word for what runs in the background; then that is ended with it."
    ).tag(config=True)
    journal_limit = Unicode("20GB", help="How much of a run's output is kept, such as 500MB; none: no limit. The end is kept always.").tag(
        config=True
    )
    on_kernel_exit = Enum(
        ("cancel", "continue"), "cancel", help="What becomes of a run whose kernel is gone (a --bg run always continues)."
    ).tag(config=True)
    ask = Bool(False, help="Show agents' requests for leave and questions in the cell, and let somebody answer them.").tag(config=True)
    raise_error = Bool(True, help="Raise CCExecutionError in the cell for an outcome other than ok.").tag(config=True)
    view = Enum(
        ("auto", "widget", "text"), "auto", help="How a running cell shows itself; auto: the widget in a notebook, text in a terminal."
    ).tag(config=True)
    save_on_start = Bool(True, help="Ask JupyterLab to save the notebook when a run starts, so that a re-opened tab finds the run.").tag(
        config=True
    )
    spare = Bool(
        False,
        help="Keep an agent waiting for the next cell with the same options: its first word comes some 0.4 s earlier, for 170 MB of memory.",
    ).tag(config=True)
    undo = Bool(True, help="Look at the folder before and after an agent's run, so that `%cc undo` can undo it.").tag(config=True)
    hooks = List(
        Dict(), help="Whom to call at moments of runs and lists: mappings with when and run, see docs/hooks.md; in the environment as JSON."
    ).tag(config=True)
    notify = List(
        Unicode(),
        default_value=["browser"],
        help="Whom to tell that a run or list has ended or needs somebody: browser (a bell in the view), command:…, an https address, env:NAME of a variable"
        " that holds one; see docs/notifications.md. In the environment comma-separated, or as JSON.",
    ).tag(config=True)
    notify_after = Float(30.0, min=0.0, help="Seconds; of what took less nobody is told.").tag(config=True)
    notify_on = List(Unicode(), default_value=["done", "failed", "input"], help="What is told: done, failed, input.").tag(config=True)
    lint_off = List(
        Unicode(), help="Lint rules that are not asked, see docs/lint.md; all: none of them. In the environment comma-separated."
    ).tag(config=True)
    env = List(Unicode(), help="Names of further environment variables for agents; in the environment comma-separated.").tag(config=True)

    def __init__(self, environ: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        """Take the defaults from `environ` and what the user has set.

        Raises
        ------
        InvalidRequest
            A value does not fit; the sentence names it.
        """
        given = from_environment(os.environ if environ is None else environ)
        try:
            super().__init__(**kwargs)
        except TraitError as error:
            raise InvalidRequest(f"A setting in a configuration file or by %config does not fit: {error} Change or remove it.") from None
        config: Any = self.config  # traitlets types its sections as unknown
        loaded = config.get(type(self).__name__, {})
        for name, value in given.items():
            if name not in loaded:
                self.set_trait(name, value)

    @validate(*_BOUNDS)
    def _bounded(self, proposal: Any) -> Any:
        """What bounds nothing is refused where it is said: a cell that knows nothing of it could not say how to get rid of it."""
        name, value = proposal.trait.name, proposal.value
        if not _is_bound(name, value):
            raise TraitError(f"CCExecutor.{name} is {value!r}; it must be {_BOUNDS[name]}.")
        return value


def _settings() -> dict[str, TraitType[Any, Any]]:
    return CCExecutor.class_traits(config=True)


def from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """What the variables `CC_EXECUTOR_…` say, checked.

    Raises
    ------
    InvalidRequest
        A variable's value does not fit.
    """
    found: dict[str, Any] = {}
    for name, trait in _settings().items():
        text = environ.get(PREFIX + name.upper())
        if text is None:
            continue
        try:
            found[name] = _parsed(trait, text)
            if not _is_bound(name, found[name]):
                raise ValueError
        except (ValueError, RecursionError, TraitError):
            said = "no JSON list" if name == "notify" else repr(text)  # an address may be secret
            raise InvalidRequest(
                f"The environment variable {PREFIX}{name.upper()} is {said}; it must be {_BOUNDS.get(name) or trait.info()}. Change or unset it."
            ) from None
    return found


def _is_bound(name: str, value: Any) -> bool:
    """Whether a value can be that of a setting, as far as `_BOUNDS` says more of it."""
    if name not in _BOUNDS or value is None:
        return True
    if name == "lint_off":
        if not value:
            return True
        from cc_executor.policy.lint import BY_ID, EVERY  # here: most people switch nothing off

        return BY_ID.keys() | {EVERY} >= set(value)
    if name != "journal_limit":
        return is_finite(value) and (value > 0 or (value == 0 and name == "stall_timeout"))
    from cc_executor.model.size import size_of  # here: a kernel that loads has it as it was made

    try:
        size_of(value)
    except ValueError:
        return False
    return True


def _parsed(trait: TraitType[Any, Any], text: str) -> Any:
    is_none = text == "" or text.lower() == "none"
    if trait.name == "hooks":
        from cc_executor.model.hook import in_a_list  # here, as below: few kernels are told of any

        return [] if is_none else in_a_list(json.loads(text))
    if trait.name == "notify":
        from cc_executor.model.notify import split_targets

        return [] if is_none else split_targets(text)
    if isinstance(trait, List):
        return [] if is_none else [part.strip() for part in text.split(",") if part.strip()]
    if is_none and trait.allow_none:
        return None
    checked: Any = trait  # `from_string` of an Enum checks nothing, and not every trait has a `validate`
    value = trait.from_string(text)
    return checked.validate(None, value) if hasattr(checked, "validate") else value


def settings_table() -> list[tuple[str, str, str, str]]:
    """Rows of (trait, environment variable, default, help), for the reference page."""
    rows: list[tuple[str, str, str, str]] = []
    for name, trait in sorted(_settings().items()):
        default: Any = trait.default()
        rows.append((f"CCExecutor.{name}", PREFIX + name.upper(), "none" if default is None else repr(default), str(trait.help)))
    return rows


def settings_of(shell: Any) -> CCExecutor:
    """The settings registered with this shell; fresh ones if the extension was not loaded into it."""
    for configurable in shell.configurables:
        if isinstance(configurable, CCExecutor):
            return configurable
    return CCExecutor(parent=shell)
