"""What `%load_ext cc_executor` does: registers the magics and the input transformer, and takes them back. Imports nothing heavy."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any, Final

from cc_executor.errors import UnsupportedPlatform
from cc_executor.kernel.config import CCExecutor
from cc_executor.kernel.magics import CELL_MAGICS, COMPLETED, LINE_MAGICS, CCMagics, complete, transform
from cc_executor.kernel.unread import read_the_unread
from cc_executor.runtime.caps import drop_caps, keep_caps
from cc_executor.runtime.narrow import bear_every_character, is_utf8

CAPS: Final = ("max_cost", "max_cost_per_day")  # settings that hold for what is run from Python and in lists, too
RECEIPT: Final = ("cc_executor.model.receipt", "Receipt")  # by name: the model is not loaded before something is run


def load(shell: Any) -> None:
    """Register everything. Loading twice is the same as loading once.

    Raises
    ------
    UnsupportedPlatform
        On Windows.
    InvalidRequest
        An environment variable `CC_EXECUTOR_…` does not fit. Nothing was registered.
    """
    if sys.platform == "win32":
        raise UnsupportedPlatform("cc_executor needs POSIX processes and signals, which Windows lacks. Run Jupyter inside WSL.")
    settings = CCExecutor(parent=shell)  # first: what it refuses must not leave half of an extension
    unload(shell)
    line_magics: dict[str, Any] = shell.magics_manager.magics["line"]
    taken = "cc" in line_magics
    others = line_magics.get("cc")
    magics = CCMagics(shell)
    shell.register_magics(magics)
    if taken:
        line_magics["cc"] = others
        print("cc_executor: %cc belongs to another extension and was left alone; use %cc_list, %cc_show, … instead.")  # noqa: T201 - the user's own question
    shell.configurables.append(settings)
    settings.observe(_drop_spare, "spare")  # another one follows the next run where one is wanted
    keep_caps(id(shell), lambda: {name: getattr(settings, name) for name in CAPS})
    shell.display_formatter.formatters["text/plain"].for_type_by_name(*RECEIPT, _receipt_text)
    shell.input_transformers_post.append(transform)
    shell.events.register("pre_run_cell", _remember_raw_cell)
    shell.events.register("post_run_cell", _call_the_roll)
    for name in COMPLETED:
        shell.set_hook("complete_command", complete, str_key=name)
    shell._cc_executor_unread = read_the_unread(getattr(shell, "kernel", None))
    narrow = [stream for stream in (sys.stdout, sys.stderr) if not is_utf8(stream)]  # of a terminal; those of a kernel bear every character
    shell._cc_executor_streams = [bear_every_character(stream) for stream in narrow]


def unload(shell: Any) -> None:
    """Take back what `load` registered. Runs that are going on go on."""
    drop_caps(id(shell))
    _drop_spare()
    getattr(shell, "_cc_executor_unread", lambda: None)()
    for as_before in getattr(shell, "_cc_executor_streams", ()):
        as_before()
    shell.input_transformers_post[:] = [known for known in shell.input_transformers_post if not _is_ours(known, "transform")]
    # By name: to go through a table would load every lazy magic of IPython 9 (40 ms of CPU).
    for kind, names in (("line", LINE_MAGICS), ("cell", CELL_MAGICS)):
        table: dict[str, Any] = shell.magics_manager.magics[kind]
        for name in names:
            magic = table.get(name)
            if _is_ours(getattr(magic, "__func__", magic), "CCMagics"):
                del table[name]
    shell.magics_manager.registry.pop(CCMagics.__name__, None)
    ours = (CCExecutor.__name__, CCMagics.__name__)  # by name, as in `_is_ours`
    shell.configurables[:] = [known for known in shell.configurables if type(known).__name__ not in ours]
    shell.display_formatter.formatters["text/plain"].pop(".".join(RECEIPT), None)
    for event in ("pre_run_cell", "post_run_cell"):
        callbacks = shell.events.callbacks[event]
        callbacks[:] = [known for known in callbacks if getattr(known, "__module__", None) != __name__]
    commands = shell.strdispatchers.get("complete_command")
    if commands is not None:
        for name in COMPLETED:
            commands.strs.pop(name, None)
    attributes: dict[str, Any] = shell.__dict__
    for name in [
        name for name in attributes if name.startswith("_cc_executor_")
    ]:  # the raw cell, say, or a wish of `%cc lint` for the next one
        delattr(shell, name)


def _drop_spare(_change: object = None) -> None:
    """End the agent that waits for the next cell, if there is one."""
    spare = sys.modules.get("cc_executor.runtime.spare")  # imported where one is wanted, and nowhere else
    if spare is not None:
        spare.drop()


def _remember_raw_cell(info: Any) -> None:
    """Keep the cell as it was written: a prompt is text, and IPython takes `>>> ` and `In [1]: ` out of cells."""
    from IPython.core.getipython import get_ipython

    shell: Any = get_ipython()
    shell._cc_executor_raw_cell = info.raw_cell


def _call_the_roll(_result: Any) -> None:
    """Once, after the cell that has loaded the extension: are there runs whose supervisor was killed? What they left is ended on another thread."""
    from IPython.core.getipython import get_ipython

    from cc_executor.errors import StateUnusable
    from cc_executor.store import roll
    from cc_executor.store.place import state_path

    shell: Any = get_ipython()
    shell.events.unregister("post_run_cell", _call_the_roll)
    try:
        if roll.missing(state_path(os.environ), now=time.time()):  # some microseconds; what follows loads everything
            threading.Thread(target=_reconcile, name="cc_executor roll", daemon=True).start()
    except (OSError, StateUnusable):  # a current folder that is gone, a home that cannot be found: whoever runs something is told
        return


def _reconcile() -> None:
    from cc_executor.runtime.reconcile import reconcile
    from cc_executor.store.home import StateHome, state_path

    reconcile(StateHome(state_path(os.environ)), environ=os.environ)


def _receipt_text(receipt: Any, printer: Any, _cycle: bool) -> None:
    """A receipt line by line; its own repr is one line of some thousand characters."""
    printer.text(receipt.model_dump_json(indent=2))


def _is_ours(function: Any, beginning: str) -> bool:
    # By name, not by identity: after a reload of the module the objects differ.
    return getattr(function, "__module__", None) == "cc_executor.kernel.magics" and getattr(function, "__qualname__", "").startswith(
        beginning
    )
