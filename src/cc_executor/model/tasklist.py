"""A list of tasks as data: what is to be done, in which order, and what is wrong with it. Knows no process, no file and no clock.

Tasks run one at a time, in the order of the list as far as their needs allow. Tasks that share a group run side by side, and nothing else beside them:
agents that work in one folder must not meet by surprise.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush
from typing import Annotated, Any, Final, NewType, cast

import msgspec
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cc_executor.model import reference
from cc_executor.model.care import LIMIT_WAIT_MAX, OnLimit, OnOutputLimit, OnUnchecked, Validation
from cc_executor.model.request import canonical_digest

ListId = NewType("ListId", str)
ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"  # pydantic's `$` is the very end

TaskId = Annotated[str, StringConstraints(pattern=ID_PATTERN)]

CIRCLES_TOLD: Final = 20  # each is looked for in the whole list; who has mended so many looks again
TASKS_LIMIT: Final = 10_000  # a list is read and drawn as a whole
# Options of a run that a task has not, and what stands in their place.
_INSTEAD: Final = {
    "agent": "`run: COMMAND` makes it a step of the shell, `prompt: TEXT` one of the agent",
    "label": "its runs are called by its `title`, or by its id",
    "on_kernel_exit": "its run goes on, and whoever runs the list next takes it up",
    "prompt": "what it should do is its `prompt`",
}
NOT_OPTIONS: Final = frozenset(_INSTEAD)


class TaskKind(StrEnum):
    """What does a task's work."""

    AGENT = "agent"  # a fresh agent process with `text` as its prompt
    SHELL = "shell"  # `text` as a command
    CALL = "call"  # a Python callable of whoever runs the list; `text` is its name


class OnFailure(StrEnum):
    """What a task that did not end well does to the others."""

    STOP = "stop"  # nothing further is started
    SKIP = "skip"  # what needs it is skipped, the rest goes on
    CONTINUE = "continue"  # everything goes on; what needs it gets what there is


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Task(_Frozen):
    """One step.

    Attributes
    ----------
    id : str
        Letters, digits, ``_`` and ``-``; at most 64.
    text : str
        The prompt, the command, or the callable's name. An agent's prompt may hold references to earlier tasks: ``{{ needs.ID.result }}``.
    needs : tuple of str
        Tasks that have to end well before. What `text` refers to is needed, too, without being named here.
    group : str
        Tasks of one group run side by side.
    on_failure : OnFailure or None
        None: as the list says.
    retry : int
        How many more times a task is tried that did not end well.
    options : dict
        Options of the run, by the names that `cc_execute` takes.
    on_limit : OnLimit or None
        None: as the list says.
    limit_wait_max : float or None
        Seconds; None: as the list says.
    reask : bool
        Ask once more, in the same session, for a structured result that is missing.
    validation : Validation or None
        A look at the work by a fresh agent, after the task's own checks have passed; written ``validate``.
    """

    id: TaskId
    kind: TaskKind = TaskKind.AGENT
    text: str
    title: str = Field(default="", max_length=200)
    needs: tuple[str, ...] = ()
    group: str = ""
    on_failure: OnFailure | None = None
    retry: int = Field(default=0, ge=0, le=100)
    options: dict[str, Any] = {}
    on_limit: OnLimit | None = None
    limit_wait_max: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    on_output_limit: OnOutputLimit = OnOutputLimit.STOP
    reask: bool = False
    validation: Validation | None = None
    on_unchecked: OnUnchecked = OnUnchecked.FAIL

    @property
    def references(self) -> tuple[reference.Reference, ...]:
        """What `text` asks for from earlier tasks."""
        return reference.found(self.text) if self.kind is TaskKind.AGENT else ()

    @property
    def all_needs(self) -> tuple[str, ...]:
        """The ids in `needs` and in the references, each once."""
        known = self._known_needs.get((self.text, self.needs))
        if known is None:
            known = self._known_needs[self.text, self.needs] = tuple(dict.fromkeys((*self.needs, *(item.task for item in self.references))))
        return known

    @cached_property
    def _known_needs(self) -> dict[tuple[str, tuple[str, ...]], tuple[str, ...]]:
        """Asked for at every decision about every task. By text and needs, because pydantic hands it on to copies that have others."""
        return {}


class _Known(msgspec.Struct):
    """What was made out of a list's `tasks`, which every decision asks for. Pydantic hands it on to copies, whose tasks may be others."""

    tasks: tuple[Task, ...] = ()
    by_id: dict[str, Task] = {}
    order: tuple[Task, ...] | None = None


class TaskList(_Frozen):
    """Tasks and what holds for all of them.

    Attributes
    ----------
    cwd : str
        Absolute path of the folder in which the tasks work, unless their options say otherwise.
    parallel : int
        How many tasks of one group run at the same time.
    max_cost : float or None
        US dollars for the whole list.
    max_cost_per_day : float or None
        US dollars for everything that is run on one day, this list's runs and all others.
    on_limit : OnLimit
        What a usage limit does.
    limit_wait_max : float
        Seconds that a usage limit is waited for at most.
    """

    name: str = Field(default="", max_length=200)
    tasks: tuple[Task, ...]
    cwd: str
    parallel: int = Field(default=4, ge=1, le=64)
    max_cost: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    on_failure: OnFailure = OnFailure.STOP
    max_cost_per_day: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    on_limit: OnLimit = OnLimit.STOP
    limit_wait_max: float = Field(default=LIMIT_WAIT_MAX, gt=0, allow_inf_nan=False)

    def digest(self) -> str:
        """SHA-256 (hex) of the work: two equal lists are one and the same. What they may cost and wait for changes nothing of it."""
        return self._digest(without=BOUNDS)

    def digest_with_cap(self) -> str:
        """The digest as it was made when a list's `max_cost` counted: lists that were run then are found by it."""
        return self._digest(without=BOUNDS - {"max_cost"})

    def _digest(self, *, without: frozenset[str]) -> str:
        whole = self.model_dump(mode="json", exclude=set(without))
        if "max_cost" in without:
            whole["max_cost"] = None
        # Fields that came later count where they say something, so that what was run before they came is still the same work.
        whole["tasks"] = [
            {name: value for name, value in task.items() if name not in _LATER or value != _LATER[name]} for task in whole["tasks"]
        ]
        return canonical_digest(whole)

    def bounded(self, bounds: Mapping[str, Any]) -> TaskList:
        """The same work with other bounds."""
        return self.model_copy(update={name: value for name, value in bounds.items() if name in BOUNDS})

    def overruled(self, fields: Mapping[str, Any]) -> TaskList:
        """The list with other fields, checked; what was left open stays so (`model_fields_set`). Raises `pydantic.ValidationError`."""
        return type(self).model_validate({name: getattr(self, name) for name in self.model_fields_set} | dict(fields))

    def task(self, task_id: str) -> Task:
        """The task with this id. Raises `KeyError`."""
        known = self._known
        if known.tasks is not self.tasks or not known.by_id:
            self._know(known)
        return known.by_id[task_id]

    @cached_property
    def _known(self) -> _Known:
        return _Known()

    def _know(self, known: _Known) -> None:
        known.tasks, known.by_id, known.order = self.tasks, {task.id: task for task in self.tasks}, None

    def policy(self, task: Task) -> OnFailure:
        """What happens when `task` does not end well."""
        return task.on_failure or self.on_failure

    def in_order(self) -> tuple[Task, ...]:
        """The tasks in the order in which they start: that of the list, except where a task needs a later one.

        Raises
        ------
        graphlib.CycleError
            `problems` says it in words.
        """
        known = self._known
        if known.tasks is not self.tasks:
            self._know(known)
        if known.order is None:
            known.order = self._sorted()
        return known.order

    def _sorted(self) -> tuple[Task, ...]:
        sorter = TopologicalSorter({task.id: task.all_needs for task in self.tasks})
        sorter.prepare()
        positions = {task.id: number for number, task in enumerate(self.tasks)}
        placed: list[Task] = []
        ready: list[int] = []
        while sorter.is_active():
            for task_id in sorter.get_ready():
                heappush(ready, positions[task_id])
            task = self.tasks[heappop(ready)]
            placed.append(task)
            sorter.done(task.id)
        return tuple(placed)

    def dependants(self, task_id: str) -> tuple[str, ...]:
        """The ids of all tasks that need this one, directly or through others, in order."""
        found: dict[str, None] = {}
        for task in self.in_order():
            if any(need == task_id or need in found for need in task.all_needs):
                found[task.id] = None
        return tuple(found)


# What a list may cost and wait for. It can be given other ones, and goes on.
BOUNDS: Final = frozenset({"max_cost", "max_cost_per_day", "on_limit", "limit_wait_max"})
_LATER: Final[Mapping[str, Any]] = {
    "on_limit": None, "limit_wait_max": None, "on_output_limit": "stop", "reask": False, "validation": None, "on_unchecked": "fail",
}  # fmt: skip


class Problem(msgspec.Struct, frozen=True):
    """Something that is wrong with a list. `place`: ``tasks[2] "build"``, with the line where there is one."""

    place: str
    words: str

    def __str__(self) -> str:
        return f"{self.place}: {self.words}" if self.place else self.words


def problems(tasks: TaskList, *, places: Mapping[int, str] | None = None) -> list[Problem]:
    """Everything that is wrong with the list's shape; the options of its runs are checked by whoever can make requests of them.

    Parameters
    ----------
    tasks : TaskList
    places : mapping, optional
        For each task's position words for the place where it stands (``line 12``).
    """
    found: list[Problem] = []
    if not tasks.tasks:
        found.append(Problem("tasks", "is empty: name at least one task."))
    if len(tasks.tasks) > TASKS_LIMIT:
        found.append(Problem("tasks", f"holds {len(tasks.tasks):,} tasks; the limit is {TASKS_LIMIT:,}: make several lists."))
    counts = Counter(task.id for task in tasks.tasks)
    for number, task in enumerate(tasks.tasks):
        place = place_of(number, task.id, places)
        if counts[task.id] > 1:
            found.append(Problem(place, f"the id {task.id!r} stands {counts[task.id]} times: ids are names, give each task its own."))
        found += [Problem(place, words) for words in _task_problems(task, counts)]
    return [*found, *_cycles(tasks), *_impossible(tasks, places)]


def place_of(number: int, task_id: str, places: Mapping[int, str] | None = None) -> str:
    """Words for the place of a task."""
    more = f" ({places[number]})" if places and number in places else ""
    return f"tasks[{number}] {task_id!r}{more}"


def _task_problems(task: Task, ids: Mapping[str, int]) -> list[str]:
    found: list[str] = []
    if not task.text.strip():
        found.append("has nothing to do: give it a prompt, a shell command or a callable.")
    found += [f"needs {need!r}, and there is no such task." for need in task.needs if need not in ids]
    for item in task.references:
        if item.task not in ids:
            found.append(f"refers to {item}, and there is no task {item.task!r}.")
        elif item.field not in reference.FIELDS:
            found.append(f"refers to {item}: a task has {', '.join(reference.FIELDS)}.")
        elif item.path and item.field not in reference.DEEP_FIELDS:
            found.append(f"refers to {item}: only {' and '.join(reference.DEEP_FIELDS)} have parts.")
    if task.kind is TaskKind.AGENT:
        found += reference.mistaken(task.text, ids)
    elif reference.found(task.text):
        found.append(
            "refers to other tasks, and only a prompt can: what an agent wrote never becomes part of a command. A command finds the results of "
            "what it needs as files in the folder $CC_NEEDS."
        )
    if task.kind is not TaskKind.AGENT:
        words = [name for name in ("on_limit", "limit_wait_max", "on_output_limit", "reask") if getattr(task, name) != _field_default(name)]
        words += [
            name
            for name in ("schema", "append_system_prompt", "resume", "rehearse")
            if name in task.options and task.kind is TaskKind.SHELL
        ]
        found += [f"has {name}, which means something for an agent alone." for name in words]
    if task.reask and "schema" not in task.options:
        found.append("has reask and no schema: there is nothing to ask for again.")
    if task.on_unchecked is not OnUnchecked.FAIL and task.validation is None:
        found.append("has on_unchecked and no validate: there is nothing that could not be checked.")
    if task.kind is TaskKind.CALL and task.options:
        found.append(f"is a Python callable and takes no options of runs ({', '.join(sorted(task.options))}).")
    found += [
        f"has the option {name!r}, which is none of a task's: {_INSTEAD[name]}." for name in sorted(NOT_OPTIONS & task.options.keys())
    ]
    return found


def _field_default(name: str) -> Any:
    return Task.model_fields[name].default


def _cycles(tasks: TaskList) -> list[Problem]:
    needs: dict[str, set[str]] = {task.id: set() for task in tasks.tasks}
    for task in tasks.tasks:
        needs[task.id].update(need for need in task.all_needs if need in needs)  # what is not there is told by itself
    found: list[Problem] = []
    while len(found) < CIRCLES_TOLD:
        try:
            TopologicalSorter(needs).prepare()
        except CycleError as error:
            ring = cast("Sequence[str]", error.args[1])
            found.append(Problem("tasks", f"need each other in a circle: {' ← '.join(ring)}. Take one of these needs away."))
            for name in ring:
                needs[name].difference_update(ring)
        else:
            break
    return found


def _impossible(tasks: TaskList, places: Mapping[int, str] | None) -> list[Problem]:
    """Tasks that may cost more by themselves than the whole list."""
    found: list[Problem] = []
    for number, task in enumerate(tasks.tasks):
        wanted = task.options.get("max_cost")
        extra = task.validation.max_cost if task.validation is not None else 0.0
        if tasks.max_cost is not None and isinstance(wanted, int | float) and wanted + extra > tasks.max_cost:
            words = (
                f"may cost ${wanted + extra:.2f}{' with its validation' if extra else ''}, and the whole list ${tasks.max_cost:.2f}: it could "
                "never start. Raise the one or lower the other."
            )
            found.append(Problem(place_of(number, task.id, places), words))
    return found


_UNFIT: Final = re.compile(r"[^A-Za-z0-9]+")


def id_from(words: str, taken: frozenset[str] | set[str]) -> str:
    """An id made of the first words of a title, different from those that are taken."""
    base = "-".join(_UNFIT.sub(" ", words.lower()).split()[:5])[:48].strip("-") or "task"
    number = 1
    made = base
    while made in taken:
        number += 1
        made = f"{base}-{number}"
    return made
