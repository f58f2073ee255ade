"""What runs have cost that have ended and that nobody has sealed, for their kernel died: the day's money counts it. Reads journals; seals nothing."""

from __future__ import annotations

import time

from cc_executor.errors import CCExecutorError
from cc_executor.model.fold import advance_all
from cc_executor.model.state import RunState
from cc_executor.runtime.plan import Plan
from cc_executor.runtime.reader import replay
from cc_executor.runtime.seal import receipt_over
from cc_executor.store.journal import RunFolder
from cc_executor.store.spend import EndedRun, ended_run


def spent_unsealed(folder: RunFolder) -> EndedRun | None:
    """What the receipt will say when somebody seals the run. Blocking.

    None for a run that goes on, and where the folder cannot be read.
    """
    try:
        facts = folder.exit_facts()
        if facts is None:
            return None
        request, plan, state = folder.request(), Plan.of(folder), RunState()
        for events in replay(folder, agent=request.agent):
            state = advance_all(state, events)
        receipt = receipt_over(folder, request, plan, state, facts, checks=(), journal={}, files=(), now=time.time())
    except (CCExecutorError, OSError, ValueError):  # a damaged folder must not keep anybody from starting a run
        return None
    return ended_run(receipt.run_id, receipt.model_dump_json().encode())
