"""`%%cc_execute` and `%cc`, as IPython sees them: thin, and cheap to load. What they do is in `cc_executor.kernel.cell` and `.commands`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Final

from IPython.core.getipython import get_ipython
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand

from cc_executor.kernel import taskoptions
from cc_executor.kernel.options import option_help

VERBS: Final = (
    "list",
    "show",
    "attach",
    "pause",
    "resume",
    "cancel",
    "receipt",
    "doctor",
    "trust",
    "untrust",
    "report",
    "undo",
    "lint",
    "history",
    "estimate",
    "answer",
)
WAITING_VERBS: Final = ("attach", "pause", "resume", "cancel", "answer")  # for a run, or for its supervisor, which may stand still
LINE_MAGICS: Final = ("cc", *(f"cc_{verb}_async" for verb in WAITING_VERBS), *(f"cc_{verb}" for verb in VERBS))
CELL_MAGICS: Final = ("cc_execute", "cc_execute_async", "cc_tasks", "cc_tasks_async")
COMPLETED: Final = ("%%cc_execute", "%%cc_tasks", "%cc", *(f"%cc_{verb}" for verb in VERBS))

# What IPython makes of a magic, and what makes it awaited.
_AWAITED: Final = (
    ("get_ipython().run_cell_magic('cc_execute',", "await get_ipython().run_cell_magic('cc_execute_async',"),
    ("get_ipython().run_cell_magic('cc_tasks',", "await get_ipython().run_cell_magic('cc_tasks_async',"),
    *(
        (f"get_ipython().run_line_magic({plain}", f"await get_ipython().run_line_magic('cc_{verb}_async', {rest}")
        for verb in WAITING_VERBS
        for plain, rest in ((f"'cc', '{verb}'", "''"), (f"'cc', '{verb} ", "'"), (f"'cc_{verb}', ", ""))
    ),
)
_CC: Final = "get_ipython().run_line_magic('cc',"
_CELL: Final = "get_ipython().run_cell_magic("
_EMPTY: Final = ", '')"  # no body: IPython refuses that by the magic's name, which is to be the one that was written


def transform(lines: list[str]) -> list[str]:
    """Make our magics top-level `await`s, which IPython runs on the kernel's own loop; it does not await magics by itself.

    Left alone where a cell cannot be awaited: inside another cell magic (`%%capture`, `%%time` run the body by a nested call), in a cell that code runs while
    the loop is busy with that code (`get_ipython().run_cell(…)`, `%run` of a notebook), and with autoawait off.
    """
    if not any(line.startswith(plain) for line in lines for plain, _ in _AWAITED) or not _is_awaitable_here():
        return lines
    return [_awaited(line) for line in lines]


def _awaited(line: str) -> str:
    for plain, awaited in _AWAITED:
        if line.startswith(plain) and not (plain.startswith(_CELL) and line.rstrip().endswith(_EMPTY)) and _is_ours(plain):
            return awaited + line[len(plain) :]
    return line


def _is_ours(plain: str) -> bool:
    """Whether `%cc` is not another extension's, where it is that which stands there."""
    shell: Any = get_ipython()
    return not plain.startswith(_CC) or getattr(shell.find_line_magic("cc"), "__module__", "") == __name__


def _is_awaitable_here() -> bool:
    shell: Any = get_ipython()
    if shell is None or not shell.autoawait:
        return False
    blocking = {"run_cell_magic"}
    if asyncio._get_running_loop() is not None:  # documented, and does not raise
        blocking.add("run_cell")  # in a terminal every cell comes this way, and no loop runs yet
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage] - the only way to see who calls
    while frame is not None:
        if frame.f_code.co_name in blocking:
            return False
        frame = frame.f_back
    return True


def complete(_shell: Any, event: Any) -> list[str]:
    """Options, agents, rehearsals, verbs and run ids, for Tab."""
    from cc_executor.kernel.completion import completions

    return completions(str(event.line), str(event.symbol))


@magics_class
class CCMagics(Magics):
    """The magics of cc_executor."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        for verb in VERBS:
            self.magics["line"][f"cc_{verb}"] = _line_magic(shell, verb)
        for verb in WAITING_VERBS[1:]:
            self.magics["line"][f"cc_{verb}_async"] = _line_magic(shell, verb, is_awaited=True)

    @no_var_expand
    @cell_magic
    def cc_execute(self, line: str, cell: str) -> Any:  # noqa: D102 - made from the table of options below
        from cc_executor.kernel.cell import execute_blocking

        return execute_blocking(self.shell, line, cell)

    @no_var_expand
    @cell_magic
    def cc_execute_async(self, line: str, cell: str) -> Any:
        """What `%%cc_execute` becomes where a cell can be awaited."""
        from cc_executor.kernel.cell import execute

        return execute(self.shell, line, cell)

    @no_var_expand
    @cell_magic
    def cc_tasks(self, line: str, cell: str) -> Any:  # noqa: D102 - made from the table of options below
        from cc_executor.kernel.taskcell import execute_tasks_blocking

        return execute_tasks_blocking(self.shell, line, cell)

    @no_var_expand
    @cell_magic
    def cc_tasks_async(self, line: str, cell: str) -> Any:
        """What `%%cc_tasks` becomes where a cell can be awaited."""
        from cc_executor.kernel.taskcell import execute_tasks

        return execute_tasks(self.shell, line, cell)

    @no_var_expand
    @line_magic
    def cc_attach_async(self, line: str) -> Any:
        """What `%cc attach` becomes where a cell can be awaited."""
        from cc_executor.kernel.cell import attach

        return attach(self.shell, line.strip())

    @no_var_expand
    @line_magic
    def cc(self, line: str) -> Any:
        """Look at runs and command them: `%cc list|show|attach|pause|resume|cancel|receipt|doctor [RUN]`.

        And `%cc report [RUN|LIST] [FILE]`, `%cc trust|untrust [FOLDER]`, `%cc lint [TEXT]`, `%cc answer [RUN] …`, `%cc history [FILTERS]`,
        `%cc estimate PROMPT`.

        `%cc undo [RUN] [--dry-run] [--redo] [--keep-mine]` brings back what was in the folder before a run.

        RUN is an id or an unambiguous part of one; without it the newest run is meant. Without a FOLDER the current one is meant.
        """
        from cc_executor.kernel.commands import run_verb

        return run_verb(self.shell, line)


CCMagics.cc_execute.__doc__ = (
    "Run this cell's text as a prompt in a fresh agent process, and show what it does.\n\n"
    "    %%cc_execute [options]\n    what the agent should do\n\n"
    f"Options\n-------\n{option_help()}\n\nDefaults: `%config CCExecutor`. Runs: `%cc list`.\n"
)
CCMagics.cc_tasks.__doc__ = (
    "Run the list of tasks in this cell, each with a fresh context, and show how it goes.\n\n"
    "    %%cc_tasks [options]\n    tasks:\n      - id: plan\n        prompt: What an agent should do.\n"
    "      - id: check\n        run: a command\n        needs: plan\n\n"
    "The cell is YAML, or Markdown with lines that begin with `Task 1:`, `Task 2:`. An equal list goes on where it stood.\n\n"
    f"Options\n-------\n{option_help(taskoptions.OPTIONS, width=24)}\n"
)


def _line_magic(shell: Any, verb: str, *, is_awaited: bool = False) -> Callable[[str], Any]:
    def magic(line: str) -> Any:
        from cc_executor.kernel.commands import run_verb, run_verb_beside

        return (run_verb_beside if is_awaited else run_verb)(shell, f"{verb} {line}")

    magic.__qualname__ = f"CCMagics.cc_{verb}{'_async' if is_awaited else ''}"
    magic.__doc__ = f"What `%cc {verb}` becomes where a cell can be awaited." if is_awaited else f"The same as `%cc {verb}`."
    return no_var_expand(magic)
