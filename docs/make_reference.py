"""Writes docs/reference.md out of the code (the Python names, the magic's options, the settings, the commands), and docs/task-list.schema.json.

`make reference` runs it.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from textwrap import dedent
from typing import Any, Final

import typer
from pydantic import BaseModel

import cc_executor
from cc_executor import errors
from cc_executor.cli.commands import app
from cc_executor.cli.listschema import list_schema
from cc_executor.kernel import taskoptions
from cc_executor.kernel.config import settings_table
from cc_executor.kernel.options import option_table
from cc_executor.model.receipt import AskedFor, Check, Exit, FileChange, Standing, StreamDigest, Times, TokenUsage, Undo
from cc_executor.policy.environment import DEPTH
from cc_executor.server.settings import ServerSettings
from cc_executor.server.stdio import TOKEN
from cc_executor.store.home import STATE_VARIABLE
from cc_executor.store.place import NOTIFY_SECRET, REDIS_VARIABLE

PAGE: Final = Path(__file__).with_name("reference.md")
SCHEMA: Final = Path(__file__).with_name("task-list.schema.json")
WIDTH: Final = 120  # what a page shows without a scroll bar
SETTINGS: Final = (
    "Every default, as a traitlet (`%config CCExecutor.model = 'NAME'`, or in a Jupyter configuration file) and as an environment variable. "
    f"Environment variables alone are `{STATE_VARIABLE}`, the folder that keeps the runs (an absolute path, or one from `~` on), `{REDIS_VARIABLE}`, the address of a "
    f"[history that machines share](redis.md), `{NOTIFY_SECRET}`, by which [messages](notifications.md) are signed, `{TOKEN[0]}`, a server's token "
    f"for [`cc-executor mcp --url`](mcp.md), and `{DEPTH}`, by which runs [within runs](limits.md#circles) are counted.\n\n"
    "They are the settings of cells. Of what a notebook runs from Python or in a list, `max_cost` and `max_cost_per_day` hold, too, for what has none of its "
    "own. In a terminal and in Python the options are those that are given; of the variables the bounds hold there, too, for what "
    "has none of its own: `CC_EXECUTOR_TIMEOUT` and `CC_EXECUTOR_MAX_TURNS` for single runs, `CC_EXECUTOR_MAX_COST` also for those of lists, "
    "`CC_EXECUTOR_MAX_COST_PER_DAY` also for lists; "
    "and so do `CC_EXECUTOR_HOOKS` and those that begin with `CC_EXECUTOR_NOTIFY`. A server has [settings of its own](#settings-of-a-server)."
)
PARTS: Final[dict[str, tuple[type, ...]]] = {
    "Receipt": (Times, Exit, TokenUsage, FileChange, Check, Standing, Undo, AskedFor, StreamDigest)
}
ERRORS: Final = "What is raised on purpose is a `CCExecutorError`, and stands in `cc_executor.errors`. Its text names the cure."
_UNDERLINE: Final = re.compile(r"-{3,}\s*\Z")


def page() -> str:
    """The whole page."""
    parts = [
        "# Reference",
        "Made from the code by `make reference`; a test compares the two.",
        "## Options of `%%cc_execute`",
        "`%%cc_execute?` prints them too. What a cell says wins over the settings below.",
        table(("option", "value", "meaning"), ((code(flags), code(value), text) for flags, value, text in option_table())),
        "## Options of `%%cc_tasks`",
        "`%%cc_tasks?` prints them too. [Task lists](tasks.md) tells how a list is written.",
        table(
            ("option", "value", "meaning"), ((code(flags), code(value), text) for flags, value, text in option_table(taskoptions.OPTIONS))
        ),
        "## Settings",
        SETTINGS,
        table(
            ("setting", "environment variable", "default", "meaning"),
            ((code(name), code(variable), code(default), text) for name, variable, default, text in settings_table()),
        ),
        "## Settings of a server",
        "As `c.CCExecutorServer.max_running = 4` in a configuration file; [server.md](server.md#settings) and [policy.md](policy.md) say what they are for.",
        table(("setting", "default", "meaning"), server_settings()),
        "## Python",
        *python_names(),
        "## Errors",
        ERRORS,
        table(("error", "means"), error_table()),
        "## Commands",
        *commands(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def schema() -> str:
    """The JSON Schema of task lists, as a file."""
    return json.dumps(list_schema(), ensure_ascii=False, indent=2) + "\n"


def code(text: str) -> str:
    """As code, or nothing."""
    return f"`{text}`" if text else ""


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in line)} |" for line in lines)


def server_settings() -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of each."""
    bare = ServerSettings()
    for name, trait in sorted(ServerSettings.class_traits(config=True).items()):
        value = getattr(bare, name)
        is_fixed = name != "heartbeat"  # it depends on the hub, and says so
        yield code(f"CCExecutorServer.{name}"), code("none" if value is None else repr(value)) if is_fixed else "", trait.help


# --- Python names -------------------------------------------------------------------------------------------------------


def python_names() -> Iterator[str]:
    """A section for each public name."""
    for name in cc_executor.__all__:
        value = getattr(cc_executor, name)
        yield f"### {name}"
        yield f"```python signature\n{declaration(name, value)}\n```"
        yield docstring(value)
        if inspect.isclass(value):
            yield members(value)
        for part in PARTS.get(name, ()):
            yield f"```python signature\n{declaration(part.__name__, part)}\n```"
            yield docstring(part)


def error_table() -> Iterator[tuple[str, str]]:
    """Each class of errors, in the order of the code."""
    for name, value in vars(errors).items():
        if inspect.isclass(value) and issubclass(value, errors.CCExecutorError):
            yield code(name), " ".join((inspect.getdoc(value) or "").partition("\n\n")[0].split())


def declaration(name: str, value: Any) -> str:
    """How the name would be declared in a stub."""
    if inspect.isfunction(value):
        return function(name, value)
    bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object and not base.__name__.startswith("_"))
    head = f"class {name}({bases}):" if bases else f"class {name}:"
    if issubclass(value, Enum):
        body = [line for line in dedent("".join(inspect.getsourcelines(value)[0][1:])).splitlines() if re.match(r"[A-Z_]+ = ", line)]
    elif is_dataclass(value) or issubclass(value, BaseModel):
        body = list(fields(value))
    else:
        body = []
    return "\n".join([head, *(f"    {line}" for line in body)]) if body else f"{head} ..."


def function(name: str, value: Any) -> str:
    """The head of a function, one parameter a line where there are many."""
    signature = inspect.signature(value)
    prefix = "async def" if inspect.iscoroutinefunction(value) else "def"
    short = f"{prefix} {name}{signature}: ..."
    if len(short) > WIDTH:
        parameters = list(signature.parameters.values())
        shown = [str(parameter) for parameter in parameters]
        keyword_only = [parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters]
        if True in keyword_only and not any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
            shown.insert(keyword_only.index(True), "*")
        returned = str(signature.replace(parameters=[])).removeprefix("()")
        short = "\n".join([f"{prefix} {name}(", *(f"    {line}," for line in shown), f"){returned}: ..."])
    return short.replace("'", "")


def fields(value: Any) -> Iterator[str]:
    """The fields of a dataclass or model, as they stand in the code."""
    source = dedent(inspect.getsource(value)).splitlines()
    for name in (
        name for base in reversed(value.__mro__) for name in inspect.get_annotations(base) if not name.startswith(("_", "model_"))
    ):
        for line in source:
            match = re.match(rf"    ({name}: [^#]*?)(?:\s+#.*)?$", line)
            if match and "repr=False" not in line:
                yield line.strip()
                break


def members(value: type) -> str:
    """The public methods and properties of a class, with the first sentence of each."""
    lines: list[str] = []
    for name, member in vars(value).items():
        if name.startswith("_") or not (inspect.isfunction(member) or isinstance(member, property)):
            continue
        doc = inspect.getdoc(member) or ""
        shown = f"{name}{taken(member)}" if inspect.isfunction(member) else name
        lines.append(f"- `{shown}`: {doc.splitlines()[0] if doc else ''}")
    return "\n".join(lines)


def taken(method: Any) -> str:
    """What a method takes, in brackets, without kinds: `(task_id)`."""
    signature = inspect.signature(method)
    parameters = [each.replace(annotation=inspect.Parameter.empty) for each in list(signature.parameters.values())[1:]]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


def docstring(value: Any) -> str:
    """A NumPy docstring as Markdown."""
    lines = (inspect.getdoc(value) or "").splitlines()
    out: list[str] = []
    in_section = False
    for index, line in enumerate(lines):
        following = lines[index + 1] if index + 1 < len(lines) else ""
        if line and _UNDERLINE.match(following):
            out += [f"**{line}**", ""]
            in_section = line != "Notes"
        elif _UNDERLINE.match(line):
            continue
        elif in_section and line and not line.startswith(" "):
            name, colon, kind = line.partition(" : ")
            out.append(f"- `{name}`: {kind}." if colon else f"- {code(line) if line.startswith('*') else line}")
        else:
            out.append(f"  {line.strip()}" if in_section and line else line)
    return "\n".join(out).strip()


# --- commands -----------------------------------------------------------------------------------------------------------


def commands() -> Iterator[str]:
    """A section for each command of `cc-executor`."""
    yield from group_of_commands("cc-executor", typer.main.get_command(app))


def group_of_commands(prefix: str, group: Any) -> Iterator[str]:
    """What a group is for, then its commands, then its groups."""
    yield str(group.help or "").strip()
    if group.invoke_without_command:
        yield table(("option", "meaning"), ((parameter_name(item), parameter_help(item)) for item in group.params))
    shown = {name: command for name, command in group.commands.items() if not command.hidden}
    for name, command in sorted(shown.items(), key=lambda item: hasattr(item[1], "commands")):
        yield f"### {prefix} {name}"
        if hasattr(command, "commands"):
            yield from group_of_commands(f"{prefix} {name}", command)
            continue
        yield dedent(command.help or "").strip()
        rows = [(parameter_name(item), parameter_help(item)) for item in command.params if not getattr(item, "hidden", False)]
        yield table(("argument or option", "meaning"), rows) if rows else ""
        yield dedent(command.epilog or "").strip()


def parameter_name(item: Any) -> str:
    """`FILE`, or `--json`, or `--cwd FOLDER`."""
    if item.param_type_name == "argument":
        return code(item.metavar or item.name.upper())
    flags = ", ".join([*item.opts, *item.secondary_opts])
    return code(flags if item.is_flag else f"{flags} {item.metavar or item.name.upper()}")


def parameter_help(item: Any) -> str:
    """What it means, and the default where there is one to name."""
    text = str(getattr(item, "help", None) or "")
    default = item.default
    if isinstance(default, str | int | float) and not isinstance(default, bool) and default != "":
        text += f" Default: `{default}`."
    return text.strip()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    SCHEMA.write_text(schema(), encoding="utf-8")
    print(f"{PAGE.name} and {SCHEMA.name} are written.")
