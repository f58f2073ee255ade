"""An example for each command, at the end of its help. The order of the table is that of the commands in the help."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import typer

EXAMPLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "run": "run --max-cost 1 'Mend tests/test_parse.py.'",
        "list": "list --limit 5",
        "show": "show 01a1fd6e",
        "attach": "attach 01a1fd6e",
        "tail": "tail --follow",
        "pause": "pause 01a1fd6e",
        "resume": "resume 01a1fd6e",
        "cancel": "cancel 01a1fd6e",
        "answer": "answer 01a1fd6e --deny --reason 'not on Fridays'",
        "undo": "undo --dry-run",
        "report": "report --html report.html",
        "verify": "verify analysis.ipynb",
        "lift": "lift analysis.ipynb",
        "estimate": "estimate 'Mend tests/test_parse.py.'",
        "lint": "lint prompt.txt",
        "validate": "validate nightly.yaml prompt.txt",
        "trust": "trust ~/parser",
        "untrust": "untrust ~/parser",
        "doctor": "doctor",
        "config": "config",
        "stress": "stress --shell --runs 2",
        "completion": "completion bash",
        "mcp": "mcp --cwd ~/parser",
        "prompt": "prompt > cc_execute.md",
        "tasks run": "tasks run nightly.yaml --max-cost 5",
        "tasks check": "tasks check nightly.yaml",
        "tasks list": "tasks list",
        "tasks show": "tasks show",
        "tasks graph": "tasks graph nightly.yaml --mermaid",
        "tasks schema": "tasks schema > task-list.schema.json",
        "tasks pause": "tasks pause",
        "tasks resume": "tasks resume",
        "tasks stop": "tasks stop",
        "tasks now": "tasks now review",
        "tasks skip": "tasks skip review",
        "tasks retry": "tasks retry review --onward",
        "tasks edit": "tasks edit review 'Review src/parse.py alone.'",
        "tasks undo": "tasks undo --from review --dry-run",
        "history": "history --since 7d --outcome failed",  # a group that does something by itself
        "history rebuild": "history rebuild",
        "history prune": "history prune --older-than 30d",
        "history share": "history share",
        "history shared": "history shared --since 7d",
        "server status": "server status",
        "key show": "key show",
        "key export": "key export > me.pem",
        "key rotate": "key rotate",
    }
)
_PLACES: Final = {name: place for place, name in enumerate(EXAMPLES)}


def add_examples(app: typer.Typer, prefix: str = "") -> None:
    """Put every command of `app` in its place and its example at the end of its help, and so below it."""
    for info in app.registered_commands:
        _add(info, prefix + _name(info))
    app.registered_commands.sort(key=lambda info: _PLACES[prefix + _name(info)])
    for group in app.registered_groups:
        assert group.typer_instance is not None  # what `add_typer` was given
        assert group.name
        if group.name in EXAMPLES:
            _add(group, group.name)
        add_examples(group.typer_instance, f"{group.name} ")


def _name(info: Any) -> str:
    return info.name or info.callback.__name__


def _add(info: Any, name: str) -> None:
    codes = info.epilog if isinstance(info.epilog, str) else ""
    info.epilog = "\n\n".join(filter(None, (f"Example: `cc-executor {EXAMPLES[name]}`", codes)))
