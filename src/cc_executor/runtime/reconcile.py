"""Runs that were lost: their supervisor was killed, and nobody may ever look at them again. Whoever comes by ends what is left of them and seals them.

Done at the start of a later run, at a list of runs, and soon after the extension is loaded. Knows the roll; `lost` ends and
seals. A run that lives, that starts, or that belongs to another host is never touched.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Final

from cc_executor.store import roll, underway
from cc_executor.store.home import StateHome

logger = logging.getLogger(__name__)

LIST_PATIENCE: Final = 2.0  # seconds that a list of runs waits; what is left is ended in some milliseconds, a long journal takes its time

_lock: Final = threading.Lock()
_threads: Final[dict[str, threading.Thread]] = {}  # by state folder: one at a time is enough


def reconcile(home: StateHome, *, environ: Mapping[str, str], patience: float = 0.0) -> None:
    """Settle the lost runs of a state folder, and end checks and hooks whose maker was killed, on a thread of its own.

    Looking whether there are any costs some microseconds.

    Parameters
    ----------
    home : StateHome
    environ : mapping of str to str
        Its secrets are masked in the receipts.
    patience : float
        Seconds to wait for the thread; what it has not done then, it does later.
    """
    if not roll.missing(home.root, now=time.time()) and not underway.noted_runs(home.root):
        return
    from cc_executor.runtime.lost import settle  # here: nearly always nothing was lost, and a list needs nothing of what seals

    name = str(home.root)
    chosen = dict(environ)
    with _lock:
        thread = _threads.get(name)
        if thread is None or not thread.is_alive():
            thread = threading.Thread(target=settle, args=(home,), kwargs={"environ": chosen}, name="cc_executor reconcile", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads, or the interpreter ends. Whoever comes by next does it; this one has just started a run
                logger.warning("lost runs are not settled now", exc_info=True)
                return
            _threads[name] = thread
    if patience:
        thread.join(patience)
