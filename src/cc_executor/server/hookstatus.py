"""What became of the hooks of a run, while it goes on and after. Reads the run's hook log and its receipt."""

from __future__ import annotations

from typing import Any

from cc_executor.store.hooklog import HookLog
from cc_executor.store.journal import RunFolder


def hook_status(folder: RunFolder) -> dict[str, Any]:
    """Every hook of a run. Blocking.

    Returns
    -------
    dict
        ``id``, and ``hooks``: for each ``hook``, ``moment``, ``status`` (``waiting``, ``called``, or a word of `HookStatus`), ``detail`` and ``seconds``.
    """
    receipt = folder.receipt()
    reports = list(receipt.hooks) if receipt is not None else []
    hooks = [report.model_dump(mode="json") for report in reports]
    if receipt is None:
        story = HookLog(folder.path).read()
        for stored in story.hooks:
            hook = stored.hook()
            report = story.reports.get(hook.key)
            if report is not None:
                hooks.append(report.model_dump(mode="json"))
                continue
            status = "called" if hook.key in story.begun else "waiting"
            hooks.append({"hook": hook.name, "moment": hook.moment.value, "status": status, "detail": "", "seconds": 0.0})
    return {"id": folder.run_id, "hooks": hooks}
