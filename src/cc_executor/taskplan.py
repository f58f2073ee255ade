"""A checked list out of what users write: prompts, callables, mappings, files. Starts nothing."""

from __future__ import annotations

import hashlib
import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from pathlib import Path, PurePath
from typing import Any, Final, cast

from pydantic import ValidationError

from cc_executor.api import absolute, json_schema, make_request, no_option, option_names
from cc_executor.errors import InvalidRequest, InvalidTaskList
from cc_executor.model.hook import Hook, call_named
from cc_executor.model.paths import EMPTY
from cc_executor.model.request import RunRequest
from cc_executor.model.tasklist import NOT_OPTIONS, Problem, Task, TaskKind, TaskList, place_of, problems
from cc_executor.model.tasktext import (
    TASK_KEYS,
    Written,
    from_items,
    from_mapping,
    from_markdown,
    from_yaml,
    nothing_of_lists,
    with_defaults,
)
from cc_executor.model.wrong import as_given, must
from cc_executor.policy.hints import WHOLE, Hint, hints, unknown_rules
from cc_executor.policy.schedule import bounded
from cc_executor.rehearsal import scripts
from cc_executor.runtime.bounds import bounds_of
from cc_executor.runtime.caps import standing_caps
from cc_executor.runtime.listhooks import kept_hooks
from cc_executor.runtime.taskcall import Call
from cc_executor.store.tasklists import ListFolder

FILE_LIMIT: Final = 4_000_000  # bytes of a list's file
SHELL: Final = "bash"  # for commands whose task names no shell
_OF_LISTS: Final = frozenset({"defaults", "hooks", "parallel", "max_cost_per_day"})  # what people write into a task

# A text without a name: a line that begins with `tasks:`, or nothing before an item that is a mapping. In Markdown `- Task 1: …` is an item, too.
# White space in front is that of its line: with `\s`, which takes line ends too, thirty empty lines took minutes.
_YAML: Final = re.compile(r"""(?m)^[^\S\n]*(?:\{[^\S\n]*)?["']?tasks["']?\s*:|\A(?:[^\S\n]*(?:#.*)?\n)*[^\S\n]*-\s+(?:\{|\w+\s*:)""")

_BYTE_ORDER_MARK: Final = re.compile(r"\A(\s*)\ufeff")


@dataclass(frozen=True, slots=True)
class Plan:
    """A list that can be run.

    Attributes
    ----------
    tasks : TaskList
    calls : mapping
        The callables, by the names under which the list knows them.
    hooks : tuple of Hook
        Whom the list itself wants called.
    lint_off, places : mapping
        For `hints`: rules that are not asked, by task; words for the place of each task.
    list_id : str
        The list that it was taken from, which goes on; empty: the newest of equal ones.
    """

    tasks: TaskList
    calls: Mapping[str, Call]
    hooks: tuple[Hook, ...] = ()
    lint_off: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    places: Mapping[int, str] = field(default_factory=dict[int, str])
    list_id: str = ""

    def hints(self, *, off: Sequence[str] = ()) -> tuple[Hint, ...]:
        """What may be wrong with the prompts; the list can be run all the same. `off`: rules that are not asked, besides those that the list itself names.

        Raises
        ------
        InvalidRequest
            There is no such rule.
        """
        return hints(self.tasks, off={**self.lint_off, WHOLE: (*self.lint_off.get(WHOLE, ()), *off)}, places=self.places)


def plan(
    tasks: Sequence[object] | Mapping[str, Any] | TaskList | str | os.PathLike[str], *, cwd: str | Path | None = None, **more: Any
) -> Plan:
    """A checked list out of what users write.

    Parameters
    ----------
    tasks : sequence, TaskList, path or str
        Prompts, callables and mappings (see `cc_executor.model.tasktext.from_items`); or a mapping with `tasks`, as a YAML file holds it; or the path of a
        YAML or Markdown file; or such a text itself, if it has more than one line.
    cwd : path, optional
        Where the tasks work; the current folder if not given.
    **more
        name, parallel, max_cost, on_failure, … and defaults: options for every run, which win over those of a file's own.

    Raises
    ------
    InvalidTaskList
        Everything that is wrong, each with its place. Nothing was started.
    InvalidRequest
        `cwd` is no path, or there is no current folder.
    """
    folder = absolute("cwd", "." if cwd is None else cwd)
    if isinstance(tasks, TaskList):
        written = Written(tasks=tasks)
        _overrule(written, tasks, more if cwd is None else {**more, "cwd": folder})
    elif isinstance(tasks, str | os.PathLike):
        written = _read(tasks, folder, more.pop("defaults", None))
        if written.tasks is not None:
            _overrule(written, written.tasks, more)
    elif isinstance(tasks, Mapping):
        defaults = more.pop("defaults", None)
        written = from_mapping(with_defaults(dict(tasks) | more, defaults), cwd=folder)
    elif isinstance(tasks, bytes) or not isinstance(tasks, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] - what users write
        what = "prompts, callables and mappings, or a file's path, or a text"
        written = Written(problems=[Problem("tasks", f"must be {what}, not {type(tasks).__name__}.")])
    else:
        written = from_items(tasks, cwd=folder, name_of=_name_of, **more)
    found = list(written.problems)
    checked = written.tasks
    if checked is not None:
        checked = _with_plain_options(checked, written, found)
        found += problems(checked, places=written.places)
        found += _option_problems(checked, written)
    found += unknown_rules(written.lint_off)
    if found or checked is None:
        raise InvalidTaskList([str(problem) for problem in found])
    return Plan(checked, written.calls, written.hooks, dict(written.lint_off), dict(written.places))


def as_plan(tasks: Sequence[object] | TaskList | str | os.PathLike[str] | Plan, more: Mapping[str, Any]) -> Plan:
    """As `plan`, or the plan itself where it was made already. Raises `InvalidRequest` where it was, and something more is said that would be lost."""
    if not isinstance(tasks, Plan):
        return plan(tasks, **more)
    if more:
        raise InvalidRequest(f"This list is planned already: say {', '.join(more)} where the plan is made.")
    return tasks


def plan_of_file(file: str, *, cwd: str | None = None) -> Plan:
    """As `plan`, of a file that a command line names: seen from the current folder, wherever the tasks work."""
    return plan(Path(absolute("FILE", file)), cwd=cwd)


def kept(folder: ListFolder) -> Plan:
    """A list that is kept, as it was given, with the bounds that hold now. Raises `StateUnusable`, and `InvalidTaskList` if it cannot be run here."""
    planned = plan(bounded(folder.tasks(), folder.state()))
    return replace(planned, hooks=kept_hooks(folder), list_id=folder.list_id)


def _name_of(call: Callable[..., object]) -> str:
    """A callable's name, and a digest of its source and of the plain values that it was given: who changes what a task does has changed the list."""
    given: list[str] = []
    while isinstance(call, partial):
        given.append(_said([call.args, call.keywords]))
        call = call.func
    own: Any = inspect.unwrap(getattr(call, "__func__", call))  # of a bound method its function; of a decorated function the one below
    kept: list[object] = [
        *_captured(own),
        *(getattr(own, "__defaults__", None) or ()),
        *(getattr(own, "__kwdefaults__", None) or {}).values(),
    ]
    # No list and no mapping: one that is filled meanwhile would make the same work another list the next time.
    given += [_said(value) for value in kept if not isinstance(value, list | dict | set)]
    try:
        source = inspect.getsource(call)
    except (OSError, TypeError):  # typed into a plain terminal; written in C
        source = ""
    whole = "\0".join([source, *given])
    return f"{call_named(call)}#{hashlib.sha256(whole.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}" if whole else call_named(call)


def _captured(call: Any) -> list[object]:
    """What a function has of the function around it."""
    found: list[object] = []
    for cell in getattr(call, "__closure__", None) or ():
        with suppress(ValueError):  # not set yet
            found.append(cell.cell_contents)
    return found


def _said(value: object, depth: int = 5) -> str:
    """A value as text that is the same in every process; what is not plain, or nested deeper, counts by its kind."""
    match value:
        case Enum():
            return str(value)
        case None | str() | bytes() | int() | float() | PurePath():
            return repr(value)
        case list() | tuple() if depth:
            return f"[{','.join(_said(each, depth - 1) for each in cast('Sequence[object]', value))}]"
        case dict() if depth:
            pairs = [_said(pair, depth - 1) for pair in cast("Mapping[object, object]", value).items()]
            return f"{{{','.join(sorted(pairs))}}}"
        case _:
            return call_named(value if callable(value) else type(value))


def _read(source: str | os.PathLike[str], cwd: str, defaults: object) -> Written:
    text, name, is_yaml = str(source), "", True
    if isinstance(source, os.PathLike) or "\n" not in text:
        path = Path(os.path.join(cwd, os.path.expanduser(text)))
        try:
            if path.stat().st_size > FILE_LIMIT:
                return Written(problems=[Problem(str(path), f"is larger than {FILE_LIMIT:,} bytes: make several lists.")])
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            return Written(problems=[Problem(str(path), f"cannot be read: {error.strerror}.")])
        except UnicodeDecodeError as error:
            return Written(problems=[Problem(str(path), f"is not UTF-8 text (byte {error.start}): save it as UTF-8.")])
        except ValueError as error:  # a character that is in no file's name
            return Written(problems=[Problem(ascii(str(path)), f"cannot be read: {error}.")])
        name, is_yaml = path.stem, path.suffix.lower() not in {".md", ".markdown", ".txt"}
    text = _BYTE_ORDER_MARK.sub(r"\1", text)
    if not name:  # no file
        is_yaml = _YAML.search(text) is not None
    return (from_yaml if is_yaml else from_markdown)(text, cwd=cwd, name=name, defaults=defaults)


def _overrule(written: Written, tasks: TaskList, more: Mapping[str, Any]) -> None:
    """What the caller says wins over what the text says."""
    if not more:
        return
    try:
        written.tasks = tasks.overruled(more)
    except ValidationError as error:
        for wrong in error.errors(include_url=False, include_context=False):
            name, is_unknown = str(wrong["loc"][0]), wrong["type"] == "extra_forbidden"
            written.problems.append(
                nothing_of_lists(name) if is_unknown else Problem(name, f"{must(wrong['msg'])} {as_given(wrong['input'])}.")
            )


def _with_plain_options(tasks: TaskList, written: Written, found: list[Problem]) -> TaskList:
    """The list with options that can be written down, and mean the same wherever it goes on: schemas as JSON Schema, paths as text, seen from its folder."""
    plain: list[Task] = []
    for number, task in enumerate(tasks.tasks):
        options: dict[str, Any] = {name: str(value) if isinstance(value, Path) else value for name, value in task.options.items()}
        if "add_dirs" in options:
            options["add_dirs"] = seen_from(tasks.cwd, options["add_dirs"])
        if isinstance(options.get("rehearse"), str):
            options["rehearse"] = scripts.whole(options["rehearse"], folder=tasks.cwd)
        validation = task.validation
        if validation is not None and validation.rehearse is not None:
            validation = validation.model_copy(update={"rehearse": scripts.whole(validation.rehearse, folder=tasks.cwd)})
        try:
            if validation is not None and validation.rehearse is not None:
                scripts.load(validation.rehearse)
            if "schema" in options:
                options["schema"] = json_schema(options["schema"])
        except InvalidRequest as error:
            found.append(Problem(place_of(number, task.id, written.places), str(error)))
        plain.append(task.model_copy(update={"options": options, "validation": validation}))
    return tasks.model_copy(update={"tasks": tuple(plain)})


def seen_from(folder: str, paths: Any) -> Any:
    """Absolute paths of one or several; what is neither, or empty, stays as it is, for whoever says so."""

    def seen(path: Any) -> Any:
        if not path or not isinstance(path, str | bytes | os.PathLike):
            return path
        return os.path.join(folder, os.path.expanduser(os.fsdecode(cast("str | bytes | os.PathLike[str]", path))))

    if isinstance(paths, str | bytes | os.PathLike | Mapping) or not isinstance(paths, Iterable):
        return seen(paths)
    return [seen(path) for path in cast("Iterable[Any]", paths)]


def _option_problems(tasks: TaskList, written: Written) -> list[Problem]:
    found: list[Problem] = []
    known = option_names() | {"output_schema"}  # which is said to be called otherwise
    for number, task in enumerate(tasks.tasks):
        place = place_of(number, task.id, written.places)
        if task.kind is TaskKind.CALL:
            if task.text not in written.calls:
                found.append(Problem(place, f"calls {task.text!r}, and only Python code can give a callable."))
            continue
        unknown = task.options.keys() - known
        said = [_no_option(name) for name in task.options if name in unknown]
        rest = {name: value for name, value in task.options.items() if name not in unknown | NOT_OPTIONS}
        try:
            request_of(tasks, task.model_copy(update={"options": rest}), task.text if task.text.strip() else "-", None, "")
        except (InvalidRequest, TypeError) as error:
            said.append(str(error))
        if said:
            found.append(Problem(place, " ".join(said)))
    return found


def _no_option(name: str) -> str:
    return f"{name} is said of the whole list: put it beside tasks." if name in _OF_LISTS else no_option(name, TASK_KEYS)


def request_of(
    tasks: TaskList, task: Task, text: str, max_cost: float | None, session: str, *, environ: Mapping[str, str] | None = None
) -> RunRequest:
    """The run of a task. `max_cost`: what the list has left for it; `environ`: where a bound for each run may stand. Raises `InvalidRequest`."""
    options: dict[str, Any] = dict(task.options)
    caps = standing_caps() if environ is None else bounds_of(environ)
    if task.kind is TaskKind.AGENT and options.get("max_cost") is None and (cap := caps.get("max_cost")) is not None:
        max_cost = cap if max_cost is None else min(cap, max_cost)
    if options.get("cwd") == "":
        raise InvalidRequest(f"cwd {EMPTY}")
    options["cwd"] = cwd_of(tasks, task)
    if max_cost is not None:
        options["max_cost"] = max_cost
    if session:
        options["resume"] = session
    if task.kind is TaskKind.AGENT:
        options.pop("shell", None)  # the list's defaults say it for its commands
    else:
        options = {"agent": "shell", "shell": SHELL, "undo": True} | options  # a list is undone whole or not at all
    # A list outlives the kernel that began it; whoever runs it next adopts what goes on.
    return make_request(text, label=task.title or task.id, on_kernel_exit="continue", **options)


def cwd_of(tasks: TaskList, task: Task) -> str:
    """The folder of a task's runs."""
    return os.path.join(tasks.cwd, os.path.expanduser(task.options.get("cwd", "")))
