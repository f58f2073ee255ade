"""Receipts in files, and what the places of a notebook say of the same run: output, its mark, the record in the notebook's metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

from cc_executor.errors import NotebookUnreadable, RunNotFound, StateUnusable
from cc_executor.model.receipt import SCHEMA_VERSION, Receipt
from cc_executor.runtime.verification import Findings, Verification, examine
from cc_executor.store.home import RUN_ID, StateHome
from cc_executor.store.keys import Keys
from cc_executor.store.notebook import FoundReceipt, is_notebook, read_json, receipts_in, record_of, records_in, stored_receipts

Look: TypeAlias = Callable[[Receipt], Findings]


def verify_file(path: Path, *, home: StateHome, transcript_roots: Sequence[Path], keys: Keys | None = None) -> list[Verification]:
    """Examine every receipt in a notebook, or the one in a receipt's JSON file.

    Parameters
    ----------
    path : Path
    home, transcript_roots, keys
        As for `cc_executor.runtime.verification.verify`.

    Returns
    -------
    list of Verification
        In the order of the cells, then the records whose outputs were cleared; empty for a notebook without a run.

    Raises
    ------
    NotebookUnreadable
        The file is neither.
    """
    look = partial(examine, home=home, transcript_roots=transcript_roots, keys=keys)
    value = read_json(path)
    if is_notebook(value):
        return _verify_notebook(value, home, look)
    if not isinstance(value, dict) or not {"run_id", "digest"} <= cast("dict[str, Any]", value).keys():
        raise NotebookUnreadable(f"{path} holds JSON, but neither a notebook of format 4 nor a receipt.")
    raw = cast("dict[str, Any]", value)
    found, _ = _examine_raw(raw, look)
    return [found.verification(str(raw["run_id"]))]


def _verify_notebook(notebook: dict[str, Any], home: StateHome, look: Look) -> list[Verification]:
    kept = records_in(notebook)
    verified: list[Verification] = []
    shown: set[str] = set()
    for output in receipts_in(notebook):
        shown.add(output.run_id)
        found, receipt = _examine_output(output, home, look)
        if receipt is not None:
            _compare_mark(output, receipt, found)
            if output.run_id in kept:
                _compare_record(kept[output.run_id], receipt, found)
        verified.append(found.verification(output.run_id, where=f"cell {output.cell + 1}"))
    for run_id, record in kept.items():
        if run_id not in shown:
            found, receipt = _examine_stored(run_id, home, look)
            if receipt is not None:
                _compare_record(record, receipt, found)
            verified.append(found.verification(run_id, where="notebook metadata"))
    return verified


def _examine_output(output: FoundReceipt, home: StateHome, look: Look) -> tuple[Findings, Receipt | None]:
    if output.receipt is not None:
        return _examine_raw(output.receipt, look)
    return _examine_stored(output.run_id, home, look)


def _examine_raw(raw: Any, look: Look) -> tuple[Findings, Receipt | None]:
    try:
        receipt = Receipt.model_validate(raw)
    except ValueError:
        found = Findings()
        version = cast("dict[str, Any]", raw).get("schema_version") if isinstance(raw, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            found.missing.append(f"The receipt has the form {version}, and this version knows only {SCHEMA_VERSION}: update cc_executor.")
        else:
            found.against.append("The receipt was changed after it was sealed: fields are missing, added, or of another kind.")
        return found, None
    return look(receipt), receipt


def _examine_stored(run_id: str, home: StateHome, look: Look) -> tuple[Findings, Receipt | None]:
    """A run that the notebook only names."""
    receipt = stored_receipts(home)(run_id)
    if receipt is None:
        found = Findings()
        found.missing.append(f"The notebook names run {run_id} and holds no receipt of it, and {_why_none(run_id, home)}.")
        return found, None
    found = look(receipt)
    found.notes.insert(0, "The notebook holds no receipt of it; the one in the run's folder was examined.")
    return found, receipt


def _why_none(run_id: str, home: StateHome) -> str:
    """Why no receipt is kept of a run, with the cure where there is one: to look makes none."""
    with suppress(RunNotFound, StateUnusable):
        if RUN_ID.match(run_id) and not home.find(run_id).has_receipt:
            return f"it goes on, or nobody has followed it to its end: then `cc-executor show {run_id}` seals it"
    return "none is kept on this machine"


def _compare_mark(output: FoundReceipt, receipt: Receipt, found: Findings) -> None:
    said = {"run_id": receipt.run_id, "digest": receipt.digest, "status": receipt.outcome.kind.value}
    for name, value in said.items():
        if name in output.mark and output.mark[name] != value and not (output.is_live and name == "status"):
            found.against.append(f"The output's metadata says {name} {output.mark[name]!r}, its receipt says {value!r}.")


def _compare_record(record: Mapping[str, Any], receipt: Receipt, found: Findings) -> None:
    said = record_of(receipt, cell_id=None)
    differing = [name for name, value in said.items() if name != "cell_id" and record.get(name) != value]
    for name in differing:
        found.against.append(f"The notebook's metadata says {name} {record.get(name)!r}, the receipt says {said[name]!r}.")
