"""Run coding agents from Jupyter: live, stoppable, with a receipt.

Importing this costs nothing: every name is loaded when it is first used (PEP 562).
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it for True; importing `typing` would double the import's cost, which every shim pays too
if TYPE_CHECKING:
    from typing import Any

    from cc_executor.api import Result, cc_execute, cc_execute_sync
    from cc_executor.errors import CCExecutionError, CCExecutorError, InvalidTaskList, TaskListFailed
    from cc_executor.kernel.taskcell import cc_tasks
    from cc_executor.model.outcome import Outcome, OutcomeKind
    from cc_executor.model.receipt import Receipt
    from cc_executor.model.request import Limits
    from cc_executor.runtime.hooks import hook, unhook
    from cc_executor.runtime.past import History, history
    from cc_executor.tasks import ListResult, cc_execute_list, cc_execute_task_list

__version__ = "0.1.0"

__all__ = [
    "CCExecutionError",
    "CCExecutorError",
    "History",
    "InvalidTaskList",
    "Limits",
    "ListResult",
    "Outcome",
    "OutcomeKind",
    "Receipt",
    "Result",
    "TaskListFailed",
    "cc_execute",
    "cc_execute_list",
    "cc_execute_sync",
    "cc_execute_task_list",
    "cc_tasks",
    "history",
    "hook",
    "unhook",
]

_HOMES = {
    "CCExecutionError": "cc_executor.errors",
    "CCExecutorError": "cc_executor.errors",
    "History": "cc_executor.runtime.past",
    "InvalidTaskList": "cc_executor.errors",
    "Limits": "cc_executor.model.request",
    "ListResult": "cc_executor.tasks",
    "Outcome": "cc_executor.model.outcome",
    "OutcomeKind": "cc_executor.model.outcome",
    "Receipt": "cc_executor.model.receipt",
    "Result": "cc_executor.api",
    "TaskListFailed": "cc_executor.errors",
    "cc_execute": "cc_executor.api",
    "cc_execute_list": "cc_executor.tasks",
    "cc_execute_sync": "cc_executor.api",
    "cc_execute_task_list": "cc_executor.tasks",
    "cc_tasks": "cc_executor.kernel.taskcell",
    "history": "cc_executor.runtime.past",
    "hook": "cc_executor.runtime.hooks",
    "unhook": "cc_executor.runtime.hooks",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def load_ipython_extension(ipython: Any) -> None:
    """Register `%%cc_execute` and `%cc` (called by `%load_ext cc_executor`)."""
    from cc_executor.kernel.extension import load

    load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """Take everything back that loading registered."""
    from cc_executor.kernel.extension import unload

    unload(ipython)


def _jupyter_server_extension_points() -> list[dict[str, Any]]:  # pyright: ignore[reportUnusedFunction] - jupyter_server calls it
    from cc_executor.server.app import CCExecutorServer

    return [{"module": "cc_executor.server", "app": CCExecutorServer}]
