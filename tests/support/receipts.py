"""Receipts and notebooks for tests that need no run."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cc_executor.model.outcome import Outcome, OutcomeKind
from cc_executor.model.receipt import RECEIPT_MIME, Exit, Receipt, Times
from cc_executor.store.bundle import BUNDLE
from cc_executor.store.home import StateHome
from cc_executor.store.notebook import WIDGET_MIME

Json = dict[str, Any]


def run_id(number: int) -> str:
    """Ids that sort by number, as those of real runs do by time."""
    return f"{number:012x}{'0' * 14}"


def receipt(number: int = 1, **changes: Any) -> Receipt:
    """A sealed receipt."""
    started = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    fields: Json = {
        "run_id": run_id(number),
        "request_digest": hashlib.sha256(str(number).encode()).hexdigest(),
        "agent": "claude",
        "model": "claude-opus-4-8",
        "prompt_sha256": hashlib.sha256(b"prompt").hexdigest(),
        "times": Times(started=started, ended=started + timedelta(seconds=2), elapsed=2.0, active=2.0),
        "outcome": Outcome(kind=OutcomeKind.OK, summary="The agent finished."),
        "exit": Exit(code=0),
        "cost": 0.0123,
        "text": "It is done.\nSecond line: ü “quoted”.",
    }
    return Receipt(**(fields | changes)).sealed()


def final_bundle(sealed: Receipt) -> tuple[Json, Json]:
    """The static output of a finished run, as the kernel makes it."""
    data = {"text/plain": sealed.text, "text/html": f"<p>{sealed.text}</p>\n<p>ok</p>", RECEIPT_MIME: sealed.model_dump(mode="json")}
    return data, {"cc_executor": {"run_id": sealed.run_id, "digest": sealed.digest, "status": sealed.outcome.kind.value}}


def final_output(sealed: Receipt) -> Json:
    """The output of a finished run."""
    data, metadata = final_bundle(sealed)
    return {"output_type": "display_data", "data": data, "metadata": metadata}


def live_output(number: int = 1) -> Json:
    """The output of a run whose end the browser has not seen."""
    view = {"model_id": "5a2b", "version_major": 2, "version_minor": 0}
    return {
        "output_type": "display_data",
        "data": {"text/plain": "cc_executor: running", WIDGET_MIME: view},
        "metadata": {"cc_executor": {"run_id": run_id(number), "status": "running"}},
    }


def code_cell(cell_id: str, *outputs: Json, source: str = "%%cc_execute\nDo it.\nAll of it.") -> Json:
    """A code cell."""
    return {"cell_type": "code", "id": cell_id, "execution_count": 1, "metadata": {}, "outputs": list(outputs), "source": source}


def notebook(*cells: Json) -> Json:
    """A notebook as a page sends it."""
    kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": list(cells), "metadata": {"kernelspec": kernelspec}, "nbformat": 4, "nbformat_minor": 5}


def keep(home: StateHome, sealed: Receipt, *, bundle: bool = True) -> Path:
    """Store a receipt, and its static output, as a run would have left them."""
    home.prepare()
    folder = home.runs_path / sealed.run_id
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "receipt.json").write_text(sealed.model_dump_json(indent=1), "utf-8")
    if bundle:
        data, metadata = final_bundle(sealed)
        (folder / BUNDLE).write_text(json.dumps({"data": data, "metadata": metadata}), "utf-8")
    return folder
