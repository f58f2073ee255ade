"""Task lists as people write them: Python objects, YAML, Markdown. Text and objects in, a list and everything that is wrong with it out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import PurePosixPath
from typing import Any, Final, cast

import msgspec
from pydantic import ValidationError

from cc_executor.model.hook import Hook, call_named, hooks_from
from cc_executor.model.paths import EMPTY
from cc_executor.model.tasklist import Problem, Task, TaskKind, TaskList, id_from, place_of
from cc_executor.model.wrong import as_given, must

# `defaults` may say them for all agents.
_CARE_KEYS: Final = ("on_limit", "limit_wait_max", "on_output_limit", "reask", "validate", "on_unchecked")
# What a task says by itself; every other key is an option of its run.
TASK_KEYS: Final = ("id", "title", "needs", "group", "on_failure", "retry", *_CARE_KEYS)
_LIST_KEYS: Final = ("name", "cwd", "parallel", "max_cost", "max_cost_per_day", "on_failure", "on_limit", "limit_wait_max")
_WORK: Final = {"prompt": TaskKind.AGENT, "run": TaskKind.SHELL, "call": TaskKind.CALL}
_SAID_BY_EACH: Final = frozenset({*TASK_KEYS, *_WORK}) - frozenset(_CARE_KEYS)
# Options that mean nothing to a command; the list's defaults hand them to agents alone.
_AGENT_OPTIONS: Final = frozenset(
    {
        "model", "fallback_model", "permission_mode", "tools", "max_turns", "max_cost", "schema", "resume", "append_system_prompt", "add_dirs",
        "rehearse", "cli", "trust_workspace", "loop_guard",
    }
)  # fmt: skip

NODES_LIMIT: Final = 100_000  # values in a YAML file, anchors unfolded

# "Task 1: …", as a line, a heading or an item of a list, bold or not.
_MARKDOWN_TASK: Final = re.compile(
    r"^\s{0,3}(?:#{1,6}\s+|[-*+]\s+|\d+[.)]\s+)?(?:\*\*|__)?Task\s+#?(?P<number>\d+)(?:\*\*|__)?(?:\s*(?P<aside>\([^()]*\)))?(?:\*\*|__)?"
    r"\s*[:.)–—-](?:\*\*|__)?\s*(?P<words>.*)$"
    # A heading may have no words of its own.
    r"|^\s{0,3}#{1,6}\s+(?:\*\*|__)?Task\s+#?(?P<alone>\d+)(?:\*\*|__)?\s*$",
    re.IGNORECASE,
)
_MARKDOWN_NUMBER: Final = re.compile(r"^(?P<indent>\s{0,3})(?P<number>\d+)[.)]\s+(?P<words>.*)$")
_FENCE: Final = re.compile(r"^\s{0,3}(?P<mark>`{3,}(?=[^`]*$)|~{3,})(?P<rest>.*)$")  # CommonMark 0.31, section 4.5
_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]*)")
_LINE_END: Final = re.compile(r"\r\n|\n|\r")  # what `splitlines` takes for one besides stands in prompts
# What YAML's own words mean for who has written a list, most often.
_CURES: Final = (
    ("mapping values are not allowed", "A text with a colon in it needs quotes, or stands below `|`."),
    ("unhashable key", "A text that begins with a brace needs quotes, or stands below `|`."),
    ("expected <block end>, but found", "A text that begins with a brace or a quote needs quotes around the whole, or stands below `|`."),
    ("'\\t' that cannot start", "Indent by spaces."),
)


class Written(msgspec.Struct):
    """What was made of somebody's list.

    Attributes
    ----------
    tasks : TaskList or None
        None when not even the shape could be made out.
    calls : dict
        The callables, by the names under which the list knows them.
    problems : list of Problem
    places : dict
        For each task's position, words for where it stands.
    lint_off : dict
        Lint rules that are not asked, for a task by its id, for all by the empty text.
    hooks : tuple of Hook
        Whom to call at moments of this list.
    """

    tasks: TaskList | None = None
    calls: dict[str, Callable[..., object]] = {}
    problems: list[Problem] = []
    places: dict[int, str] = {}
    lint_off: dict[str, tuple[str, ...]] = {}
    hooks: tuple[Hook, ...] = ()


def from_items(
    items: Sequence[object],
    *,
    cwd: str,
    name_of: Callable[[Callable[..., object]], str] = call_named,
    **more: Any,
) -> Written:
    """A list out of Python objects.

    Parameters
    ----------
    items : sequence
        For each task a `Task`, a prompt, a callable, or a mapping: `prompt`, `run` (a command) or `call` (a callable), the fields of `Task`, and options
        of the run.
    cwd : str
        Absolute.
    name_of : callable
        Names a callable; equal lists have equal names.
    **more
        Fields of `TaskList`, and `defaults`: options for every run.
    """
    made = Written()
    return _listed([_named(item, made, name_of) for item in items], made, more | {"cwd": cwd})


def _listed(items: Sequence[object], made: Written, given: dict[str, Any]) -> Written:
    """Complete `made` with the tasks and with what is `given` for the whole list."""
    defaults: Any = given.pop("defaults", None) or {}
    if not isinstance(defaults, Mapping):
        made.problems.append(Problem("defaults", "must be a mapping of options."))
        defaults = {}
    usual = {str(name): value for name, value in cast("Mapping[object, Any]", defaults).items()}
    for name in [name for name in usual if name in _SAID_BY_EACH]:
        made.problems.append(Problem("defaults", f"{name} is said of each task by itself: they hold options for the runs of all."))
        del usual[name]
    _take_lint("", given, "", made)
    said = hooks_from(given.pop("hooks", None), callables=False)
    made.hooks = said.hooks
    made.problems += [Problem("hooks", problem) for problem in said.problems]
    tasks: list[Task] = []
    taken: set[str] = set()
    for number, item in enumerate(items):
        task = _task(number, item, usual, taken, made)
        tasks.append(task)
        taken.add(task.id)
    for name in sorted(given.keys() - set(_LIST_KEYS)):
        made.problems.append(nothing_of_lists(name))
        del given[name]
    whole = {name: value for name, value in given.items() if value is not None} | {"tasks": tuple(tasks)}
    try:
        made.tasks = TaskList.model_validate(whole)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False)
        made.problems += [Problem(str(item["loc"][0]), _words(item)) for item in wrong]
        # Without them, so that everything else is looked at, too. `cwd` is ours, and right.
        made.tasks = TaskList.model_validate(
            {name: value for name, value in whole.items() if name not in {item["loc"][0] for item in wrong}}
        )
    return made


def nothing_of_lists(name: str) -> Problem:
    """That a list has no field of this name, and which it has."""
    return Problem(
        name, f"is nothing that a list has; it has {', '.join(_LIST_KEYS)}, defaults (options for all its runs), hooks and tasks."
    )


def with_defaults(given: Mapping[str, Any], defaults: object) -> dict[str, Any]:
    """A list as a mapping, with options for every run that somebody else has said: they win over those of its own `defaults`."""
    own: object = given.get("defaults") or {}
    if defaults is None or not isinstance(own, Mapping):  # what is wrong with its own is said
        return dict(given)
    if not isinstance(defaults, Mapping):
        return {**given, "defaults": defaults}
    return {**given, "defaults": {**cast("Mapping[str, Any]", own), **cast("Mapping[str, Any]", defaults)}}


def _task(number: int, item: object, defaults: Mapping[str, Any], taken: set[str], made: Written) -> Task:
    """The task; in the place of one that is none, something that keeps its place and its id, so that all others are told by theirs."""
    if isinstance(item, Task):
        return item
    if isinstance(item, str):
        item = {"prompt": item}
    if not isinstance(item, Mapping):
        place = place_of(number, str(number + 1), made.places)
        made.problems.append(Problem(place, f"must be a prompt, a callable or a mapping, not {type(item).__name__}."))
        return _stand_in(id_from(str(number + 1), taken))
    given = {str(name): value for name, value in cast("Mapping[object, Any]", item).items()}
    named: object = given.get("id")
    task_id = _id_of(given, number, taken) if named in (None, "") else str(named)
    place = place_of(number, task_id, made.places)
    if isinstance(named, bool | float):
        made.problems.append(Problem(place, f"id is read by YAML as {named!r}: put it in quotes."))
        task_id = _id_of(given, number, taken)
    _take_lint(task_id, given, place, made)
    works = [name for name in _WORK if name in given]
    if len(works) != 1:
        said = "nothing to do" if not works else " and ".join(works)
        made.problems.append(
            Problem(place, f"has {said}: give it one of prompt (for an agent), run (a command) and call (a Python callable).")
        )
        return _stand_in(task_id)
    kind = _WORK[works[0]]
    own = {name: given[name] for name in TASK_KEYS if given.get(name) is not None} | {"id": task_id}
    if kind is TaskKind.AGENT:
        own = {name: defaults[name] for name in _CARE_KEYS if defaults.get(name) is not None} | own
    own["needs"] = _ids(own.get("needs", ()))
    if "validate" in own:
        own["validation"] = _validation(own.pop("validate"))
    options = {name: value for name, value in given.items() if name not in {*TASK_KEYS, *_WORK} and value is not None}
    not_for_it = {TaskKind.AGENT: frozenset[str](), TaskKind.SHELL: _AGENT_OPTIONS, TaskKind.CALL: defaults.keys()}[kind]
    usual = {name: value for name, value in defaults.items() if name not in not_for_it and name not in _CARE_KEYS}
    options = usual | options
    try:
        return Task.model_validate(own | {"kind": kind, "text": given[works[0]], "options": options})
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_context=False):
            where = ".".join(str(part) for part in problem["loc"]).replace("validation", "validate", 1)
            made.problems.append(Problem(place, f"{works[0] if where == 'text' else where} {_words(problem)}"))
        return _stand_in(task_id) if kind is TaskKind.CALL else _stand_in(task_id, kind, options)


def _stand_in(task_id: str, kind: TaskKind = TaskKind.SHELL, options: Mapping[str, Any] | None = None) -> Task:
    """Something that can be looked at in the place of a task that is none: what is wrong with its options is told with the rest."""
    return Task.model_construct(id=task_id, kind=kind, text="-", title="-", options=dict(options or {}))


def _take_lint(task_id: str, given: dict[str, Any], place: str, made: Written) -> None:
    """Which lint rules are switched off here; nothing of it is part of the work."""
    wanted, ids = given.pop("lint", None), _several(given.pop("lint_off", None) or ())
    if wanted not in (None, True, False, "on", "off"):
        made.problems.append(Problem(place, f"lint must be on or off (given: {wanted!r}); single rules are switched off by lint_off."))
    off = ("all",) if wanted in (False, "off") else ()
    if not isinstance(ids, tuple):
        made.problems.append(Problem(place, f"lint_off must be the id of a rule, or a list of them (given: {ids!r})."))
    else:
        off = (*off, *map(str, cast("tuple[object, ...]", ids)))
    if off:
        made.lint_off[task_id] = off


def _id_of(given: Mapping[str, Any], number: int, taken: set[str]) -> str:
    title = given.get("title")
    if isinstance(title, str) and title:
        return id_from(title, taken)
    return id_from(str(number + 1), taken)


def _named(item: object, made: Written, name_of: Callable[[Callable[..., object]], str]) -> object:
    """`item` with its callable by name, and a title after the callable if it has none."""
    if callable(item):
        item = {"call": item}
    if not isinstance(item, Mapping):
        return item
    given = dict(cast("Mapping[str, Any]", item))
    work = given.get("call")
    if not callable(work):
        return given
    name = name_of(work)
    while made.calls.get(name, work) is not work:
        name += "'"
    made.calls[name] = work
    return {"title": getattr(work, "__name__", "")} | given | {"call": name}


def _validation(value: object) -> object:
    return {"prompt": value} if isinstance(value, str) else value


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else tuple(cast("list[object]", value)) if isinstance(value, list) else value


def _ids(value: object) -> object:
    """Ids of tasks. A number is one, too: a task that is given none has that of its place."""
    if isinstance(value, list | tuple):
        return tuple(_id(each) for each in cast("Sequence[object]", value))
    return _several(_id(value))


def _id(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _words(error: Any) -> str:
    message = must(str(error["msg"]))
    if error["type"] == "string_pattern_mismatch":
        message = "must be letters, digits, _ and -, at most 64, and begin with a letter or digit"
    if error["type"] == "model_type":  # there is one model in a task
        message = "must be a text that says what has to hold, or a mapping with prompt"
    is_read_otherwise = error["type"] in {"string_type", "tuple_type"} and isinstance(error["input"], bool | int | float | date)
    return f"{message} {as_given(error['input'])}.{' Put it in quotes.' if is_read_otherwise else ''}"


def from_yaml(text: str, *, cwd: str, name: str = "", defaults: object = None) -> Written:
    """A list out of YAML: a mapping with `tasks`, or just the tasks. `defaults`: as for `with_defaults`."""
    import yaml

    made = Written()
    try:  # JSON is YAML but for its tabs, which stand between its texts alone, and for characters that are written as two
        value: Any = json.loads(text)
        text = text.replace("\t", " ")
    except (ValueError, RecursionError):
        value = None
    try:
        root: Any = cast("Any", yaml).compose(text, Loader=yaml.SafeLoader)
        _look_over(root, made)
        if made.problems:
            return made
        value = yaml.safe_load(text) if value is None else value
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        said = f"is no YAML: {error.problem or error.context}."
        made.problems.append(Problem(place, " ".join([said, *(cure for words, cure in _CURES if words in said)])))
        return made
    except RecursionError:
        made.problems.append(Problem("", "This YAML is nested deeper than anybody can read."))
        return made
    except (yaml.YAMLError, ValueError) as error:  # a character that YAML does not allow; a date that there is not
        made.problems.append(Problem("", f"This is no YAML: {str(error).splitlines()[0]}."))
        return made
    except (LookupError, AttributeError):  # what PyYAML's readers of tags trip over (6.0.2): `!!int ''`, `!!bool maybe`, `!!timestamp soon`
        made.problems.append(
            Problem("", "This is no YAML: a value is not of the kind that its tag (`!!int`, `!!bool`, …) says. Leave the tag out.")
        )
        return made
    top: dict[str, Any] = dict(cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else {"tasks": value}
    top.pop("$schema", None)  # for editors
    made.places = {number: f"line {node.start_mark.line + 1}" for number, node in enumerate(_task_nodes(root))}
    made.problems += [
        Problem(made.places[number], words) for number, node in enumerate(_task_nodes(root)) for words in _other_numbers(node)
    ]
    return from_mapping(with_defaults({"name": name} | {str(key): item for key, item in top.items()}, defaults), cwd=cwd, made=made)


def from_mapping(given: Mapping[str, Any], *, cwd: str, made: Written | None = None) -> Written:
    """A list out of a mapping with `tasks` and with what holds for all of them, as YAML and JSON have it.

    Parameters
    ----------
    given : mapping
    cwd : str
        Absolute; what `given` says is seen from there.
    made : Written, optional
        With the places of the tasks.
    """
    made = Written() if made is None else made
    rest = dict(given)
    items = rest.pop("tasks", None)
    where = rest.pop("cwd", "")
    if not isinstance(where, str):
        made.problems.append(Problem("cwd", f"must be a path (given: {where!r})."))
        return made
    if "cwd" in given and not where:
        made.problems.append(Problem("cwd", EMPTY))
        return made
    if not isinstance(items, list):
        made.problems.append(Problem("tasks", "is missing, or no list: write `tasks:` and below it one item for each task."))
        return made
    return _listed(cast("list[object]", items), made, rest | {"cwd": str(PurePosixPath(cwd) / where)})


def _look_over(root: Any, made: Written) -> None:
    """Find what the readers of YAML take without a word: keys that stand twice (the last one wins), and anchors that unfold without end."""
    import yaml

    sizes: dict[int, int] = {}

    def size_of(node: Any) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        sizes[id(node)] = NODES_LIMIT  # an anchor inside itself
        total = 1
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in cast("list[tuple[Any, Any]]", node.value):
                if str(key.value) in seen:
                    place = f"line {key.start_mark.line + 1}"
                    made.problems.append(Problem(place, f"{key.value!r} stands twice in one mapping; one of them would be lost."))
                seen.add(str(key.value))
                total += size_of(value)
        elif isinstance(node, yaml.SequenceNode):
            total += sum(map(size_of, cast("list[Any]", node.value)))
        sizes[id(node)] = total
        return total

    if root is not None and size_of(root) > NODES_LIMIT:
        made.problems.append(
            Problem("", f"unfolds to more than {NODES_LIMIT:,} values by its anchors: write them out, or make several lists.")
        )


def _other_numbers(task: Any) -> list[str]:
    """Ids that YAML reads as another number than stands there: ``010`` is 8."""
    import yaml

    named = [(key.value, value) for key, value in task.value if key.value in {"id", "needs"}] if isinstance(task, yaml.MappingNode) else []
    return [
        f"{name}: {node.value} is read by YAML as another number: put it in quotes."
        for name, value in cast("list[tuple[str, Any]]", named)
        for node in (cast("list[Any]", value.value) if isinstance(value, yaml.SequenceNode) else (value,))
        if node.tag == "tag:yaml.org,2002:int" and _DECIMAL.fullmatch(node.value) is None
    ]


def _task_nodes(root: Any) -> Sequence[Any]:
    import yaml

    if isinstance(root, yaml.MappingNode):
        root = next((value for key, value in cast("list[tuple[Any, Any]]", root.value) if key.value == "tasks"), None)
    return cast("list[Any]", root.value) if isinstance(root, yaml.SequenceNode) else []


def from_markdown(text: str, *, cwd: str, name: str = "", defaults: object = None) -> Written:
    """A list out of Markdown: ``Task 1: …`` in lines, headings or list items; without any, the items of a numbered list.

    A task's prompt is everything from its words to the next task, code blocks included. `defaults`: options for every run.
    """
    lines = _LINE_END.split(text)
    made = Written()
    for pattern in (_MARKDOWN_TASK, _MARKDOWN_NUMBER):
        starts = _starts(lines, pattern, made)
        if starts:
            break
    else:
        return Written(
            problems=[Problem("", "There is no task here: write lines that begin with `Task 1:`, `Task 2:`, or a numbered list.")]
        )
    items: list[object] = []
    counts_by_itself = pattern is _MARKDOWN_NUMBER and len({number for _, number, _ in starts}) == 1  # as Markdown does with 1. 1. 1.
    ends = [start for start, _, _ in starts[1:]] + [len(lines)]
    for (start, number, words), end in zip(starts, ends, strict=True):
        title = words.rstrip("*_ ")
        body = "\n".join(lines[start + 1 : end]).strip("\n").rstrip()
        made.places[len(items)] = f"line {start + 1}"
        items.append(
            {"id": str(len(items) + 1) if counts_by_itself else number, "title": title[:200], "prompt": f"{title}\n{body}".strip()}
        )
    return _listed(items, made, with_defaults({"cwd": cwd, "name": name}, defaults))


def _starts(lines: Sequence[str], pattern: re.Pattern[str], made: Written) -> list[tuple[int, str, str]]:
    """Where tasks begin, with their numbers and words; not in code, nor in the items of an item."""
    found: list[tuple[int, str, str]] = []
    fence, opened, hides = "", 0, False
    inside = 0  # columns from which on a line belongs to the numbered item before it
    for position, line in enumerate(lines):
        mark, match = _FENCE.match(line), pattern.match(line)
        if fence:
            is_end = mark is not None and mark["mark"].startswith(fence) and not mark["rest"].strip()
            fence, hides = "" if is_end else fence, not is_end and (hides or match is not None)
        elif mark:
            fence, opened = mark["mark"], position
        elif match:
            known = match.groupdict()
            if len(known.get("indent") or "") >= inside > 0:
                continue
            inside = match.start("words") if "indent" in known else 0
            words = " ".join(part for part in ((known["words"] or "").rstrip(), known.get("aside")) if part)
            found.append((position, known["number"] or known["alone"], words))
    if hides and found:
        made.problems.append(
            Problem(f"line {opened + 1}", "this code block has no end, and tasks stand in it: close it, or they are none.")
        )
    return found
