"""Receipts in a notebook file: finding them, lifting them to the notebook's metadata, repairing an output whose end the browser missed.

Knows the notebook format (nbformat 4) and the places where a run leaves its mark; knows no Jupyter software, no agent, no clock. `lift` and
`receipts_in` are pure on the notebook's JSON; the functions below them read and write files.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar, cast

import msgspec

from cc_executor.errors import NotebookUnreadable, RunNotFound, StateUnusable
from cc_executor.model.receipt import RECEIPT_MIME, Receipt
from cc_executor.store.bundle import MARK, Json, as_object, read_bundle, read_list_bundle
from cc_executor.store.home import RUN_ID, StateHome
from cc_executor.store.journal import RunFolder
from cc_executor.store.place import is_gone

LEFT_OUT: Final = "left_out"  # in the place of a receipt that was too big for the notebook: why, beside its run id and digest
NBFORMAT: Final = 4
WIDGET_MIME: Final = "application/vnd.jupyter.widget-view+json"
# A record is some 450 bytes, so this is less than half a megabyte in a notebook; the runs themselves stay in the store.
RECORDS_LIMIT: Final = 1000
# Bigger than any notebook that JupyterLab opens; a log that was given by mistake must not fill the memory.
NOTEBOOK_LIMIT: Final = 512 * 1024 * 1024
_SPLIT_MIMES: Final = frozenset({"application/javascript", "image/svg+xml"})  # besides text/*: nbformat 5.11, v4/rwbase.py

T = TypeVar("T")
ReceiptOf: TypeAlias = Callable[[str], Receipt | None]
BundleOf: TypeAlias = Callable[[str], tuple[Json, Json] | None]


class FoundReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """One output that a run left; or one of the runs of a task list, whose output names them all.

    Attributes
    ----------
    run_id : str
        From the receipt if the output holds one, else from the output's mark.
    cell : int
        Index of the cell, from 0.
    cell_id : str or None
        The cell's id; None before nbformat 4.5.
    mark : mapping
        The output's ``metadata["cc_executor"]``; empty when there is none.
    receipt : Any
        The JSON under the receipt's MIME type, unchecked; None when the output holds none, or only names one that was too big for a notebook.
    output : dict
        The output itself.
    """

    run_id: str
    cell: int
    cell_id: str | None
    mark: Mapping[str, Any]
    receipt: Any
    output: Json
    is_listed: bool = False  # one of several that a task list's output names

    @property
    def is_live(self) -> bool:
        """Whether the output is a live view, or what was left of one."""
        if self.is_listed:
            return False
        data = as_object(self.output.get("data"))
        return WIDGET_MIME in data or (self.receipt is None and not self.mark.get("digest"))


def receipts_in(notebook: Json) -> Iterator[FoundReceipt]:
    """Every run that an output names, in the order of the cells. Whatever is not as nbformat 4 wants it is passed over."""
    for index, raw in enumerate(_array(notebook.get("cells"))):
        cell = as_object(raw)
        cell_id = cell.get("id")
        for output in map(as_object, _array(cell.get("outputs"))):
            mark = as_object(as_object(output.get("metadata")).get(MARK))
            receipt = as_object(output.get("data")).get(RECEIPT_MIME)
            if LEFT_OUT in as_object(receipt):
                mark, receipt = (
                    {**mark, **{name: value for name, value in as_object(receipt).items() if name in {"run_id", "digest"}}},
                    None,
                )
            run_id = as_object(receipt).get("run_id") or mark.get("run_id")
            if isinstance(run_id, str) and run_id:
                yield FoundReceipt(
                    run_id=run_id,
                    cell=index,
                    cell_id=cell_id if isinstance(cell_id, str) else None,
                    mark=mark,
                    receipt=receipt,
                    output=output,
                )
            for listed in map(as_object, _array(mark.get("receipts"))[:RECORDS_LIMIT]):
                if isinstance(run_id := listed.get("run_id"), str) and run_id:
                    yield FoundReceipt(
                        run_id=run_id,
                        cell=index,
                        cell_id=cell_id if isinstance(cell_id, str) else None,
                        mark=listed,
                        receipt=None,
                        output=output,
                        is_listed=True,
                    )


def records_in(notebook: Json) -> dict[str, Json]:
    """The compact records in the notebook's metadata, by run id."""
    kept = as_object(as_object(as_object(notebook.get("metadata")).get(MARK)).get("receipts"))
    return {run_id: cast("Json", record) for run_id, record in kept.items() if RUN_ID.match(run_id) and isinstance(record, dict)}


def record_of(receipt: Receipt, *, cell_id: str | None) -> Json:
    """The compact record of a receipt, as it stands in the notebook's metadata."""
    return {
        "run_id": receipt.run_id,
        "digest": receipt.digest,
        "request_digest": receipt.request_digest,
        "status": receipt.outcome.kind.value,
        "standing": receipt.standing.value,
        "agent": receipt.agent,
        "model": receipt.model,
        "started": receipt.times.started.isoformat(),
        "elapsed": receipt.times.elapsed,
        "cost": receipt.cost,
        "rehearsed": receipt.rehearsed,
        "cell_id": cell_id,
    }


def lift(
    notebook: Json,
    *,
    previous: Json | None,
    receipt_of: ReceiptOf,
    bundle_of: BundleOf,
    list_bundle_of: BundleOf = lambda _: None,
) -> bool:
    """Bring the receipts of the outputs into the notebook's metadata, in place, and repair outputs that missed the end of their run.

    Records are only ever added: what the previous file knew stays, so Clear Outputs keeps it, and what is known is never overwritten. Equal input
    gives equal output, and lifting twice changes nothing.

    Parameters
    ----------
    notebook : dict
        The notebook's JSON (nbformat 4); anything else is left alone.
    previous : dict or None
        The notebook that the file holds now, or None when there is none.
    receipt_of, bundle_of : callable
        The sealed receipt and the static output (data, metadata) of a run id, or None. See `stored_receipts` and `stored_bundles`.
    list_bundle_of : callable
        The static output of a task list's id, or None while it goes on. See `stored_list_bundles`.

    Returns
    -------
    bool
        Whether `notebook` was changed.
    """
    if not is_notebook(notebook):
        return False
    changed = _end_lists(notebook, list_bundle_of)
    known = records_in(notebook)
    records = {**known, **(records_in(previous) if previous is not None else {})}
    for found in receipts_in(notebook):
        if not RUN_ID.match(found.run_id):
            continue
        receipt = _intact(found.receipt)
        if found.is_live and (stored := receipt_of(found.run_id)) is not None:
            receipt = stored
            _make_static(found, stored, bundle_of)
            changed = True
        if found.run_id in records:
            continue
        if receipt is None and found.mark.get("digest") and (stored := receipt_of(found.run_id)) is not None:
            receipt = stored if stored.digest == found.mark["digest"] else None
        if receipt is not None:
            records[found.run_id] = record_of(receipt, cell_id=found.cell_id)
    # A run id begins with the time, so the order of the ids is the order of the runs, and the last ones are the newest.
    records = dict(sorted(records.items())[-RECORDS_LIMIT:])
    # Compared as text: a browser writes 2.0 as 2, which is equal to Python and another line in the file.
    if json.dumps(records, sort_keys=True) == json.dumps(known, sort_keys=True):
        return changed
    metadata = notebook.get("metadata")
    if not isinstance(metadata, dict):
        metadata = notebook["metadata"] = {}
    metadata = cast("Json", metadata)
    metadata[MARK] = {**as_object(metadata.get(MARK)), "receipts": records}
    return True


def without_dead_views(notebook: Json, *, others: Collection[str] = (), is_without_kernel: bool = False) -> None:
    """Take out live views whose kernel is gone, in place: in a page there would be "model not found" instead of the words that say how to see the run.

    `others`: the process marks of kernels that are not this notebook's, as that of its original is not a copy's. `is_without_kernel`: whoever opens the
    notebook gets a new kernel, which has never had the views. Those that a page finds after all it puts in again (`static/notebook.js` of the kernel's door).
    """
    for cell in map(as_object, _array(notebook.get("cells"))):
        for output in map(as_object, _array(cell.get("outputs"))):
            data, metadata = as_object(output.get("data")), as_object(output.get("metadata"))
            if MARK not in metadata or WIDGET_MIME not in data or "text/plain" not in data:
                continue
            kernel = as_object(metadata[MARK]).get("kernel")
            if is_without_kernel or is_gone(kernel) or (isinstance(kernel, str) and kernel in others):
                output["data"] = {mime: value for mime, value in data.items() if mime != WIDGET_MIME}


def _end_lists(notebook: Json, list_bundle_of: BundleOf) -> bool:
    """Put the stored table in place of the live view of every task list that has ended; whether there was one."""
    changed = False
    for cell in map(as_object, _array(notebook.get("cells"))):
        for output in map(as_object, _array(cell.get("outputs"))):
            mark = as_object(as_object(output.get("metadata")).get(MARK))
            list_id, is_live = mark.get("list_id"), WIDGET_MIME in as_object(output.get("data")) or mark.get("status") == "running"
            if isinstance(list_id, str) and is_live and (bundle := list_bundle_of(list_id)) is not None:
                output["data"], output["metadata"] = bundle
                changed = True
    return changed


def _intact(raw: Any) -> Receipt | None:
    """The receipt in an output, if it is one and is as it was sealed: nothing else is worth a record."""
    if raw is None:
        return None
    try:
        receipt = Receipt.model_validate(raw)
    except ValueError:
        return None
    return receipt if receipt.is_intact else None


def _make_static(found: FoundReceipt, receipt: Receipt, bundle_of: BundleOf) -> None:
    """Put the stored output in place of a live view. Where none was stored (the kernel died before the end), it shows the receipt alone."""
    from cc_executor.model.bundle import static_bundle  # here, because the first cell imports this module, and needs no Markdown yet

    mark = {"run_id": receipt.run_id, "digest": receipt.digest, "status": receipt.outcome.kind.value}
    data, metadata = bundle_of(found.run_id) or static_bundle(receipt)
    found.output["data"] = {mime: value for mime, value in data.items() if mime != WIDGET_MIME}
    found.output["metadata"] = {**metadata, MARK: {**as_object(metadata.get(MARK)), **mark}}


# --- the store's side ---------------------------------------------------------------------------------------------


def stored_receipts(home: StateHome) -> ReceiptOf:
    """Sealed receipts by whole run id; None for a run that is not kept here, has not ended, or cannot be read."""
    return _by_run(home, RunFolder.receipt)


def stored_bundles(home: StateHome) -> BundleOf:
    """Static outputs by whole run id, as the kernel stored them beside the receipt; None where there is none or it is damaged."""
    return _by_run(home, read_bundle)


def _by_run(home: StateHome, read: Callable[[RunFolder], T | None]) -> Callable[[str], T | None]:
    def kept(run_id: str) -> T | None:
        if not RUN_ID.match(run_id):  # an id from a notebook is anybody's text, and `find` would take a beginning of one
            return None
        with contextlib.suppress(RunNotFound, StateUnusable):
            return read(home.find(run_id))
        return None

    return kept


def stored_list_bundles(home: StateHome) -> BundleOf:
    """Static outputs by whole id of a task list; None where the list goes on, is not kept here, or what was stored is damaged."""
    # Here, because the first cell imports this module, and few cells are lists.
    from cc_executor.model.listrecord import ListStatus
    from cc_executor.store.tasklists import FOLDER, LIST_ID, ListFolder

    def bundle_of(list_id: str) -> tuple[Json, Json] | None:
        if not LIST_ID.match(list_id):
            return None
        folder = ListFolder(home.root / FOLDER / list_id)
        try:
            is_open = folder.state().status is ListStatus.OPEN
        except StateUnusable:
            return None
        return None if is_open else read_list_bundle(folder.path)

    return bundle_of


# --- files --------------------------------------------------------------------------------------------------------


def read_json(path: Path) -> Any:
    """The JSON of a file.

    Raises
    ------
    NotebookUnreadable
        No such file, not readable, too big, or not JSON.
    """
    try:
        if path.stat().st_size > NOTEBOOK_LIMIT:
            raise NotebookUnreadable(f"{path} is larger than {NOTEBOOK_LIMIT // 2**20} MB, which no notebook or receipt is.")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise NotebookUnreadable(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise NotebookUnreadable(f"{path} is not a notebook or a receipt: it does not hold JSON ({error}).") from error


def parse_notebook(raw: bytes) -> Json | None:
    """The notebook in these bytes, or None when they are something else."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return cast("Json", value) if is_notebook(value) else None


def is_notebook(value: Any) -> bool:
    """Whether this JSON has the shape of a notebook of format 4."""
    found = as_object(value)
    return found.get("nbformat") == NBFORMAT and isinstance(found.get("cells"), list)


def lift_file(path: Path, *, home: StateHome) -> bool:
    """Lift the receipts of a notebook file, for tools that write the file without a Jupyter server (nbclient, papermill, editors).

    The file is written whole or not at all, with its mode, indentation and order of keys; a file that needs no change is not touched.

    Parameters
    ----------
    path : Path
        The notebook.
    home : StateHome
        Where the runs are kept.

    Returns
    -------
    bool
        Whether the file was changed.

    Raises
    ------
    NotebookUnreadable
        The file is not a notebook of format 4, cannot be read or written, or was changed by somebody else meanwhile.
    """
    # A link stays a link. Not by `Path.resolve`, which raises where links lead in a circle; whoever reads the file says that.
    path = Path(os.path.realpath(path))
    before = _seen(path)  # before it is read: whatever is written from here on is somebody else's
    notebook = read_json(path)
    if not is_notebook(notebook):
        raise NotebookUnreadable(f"{path} is not a notebook of format 4. Open and save it in Jupyter to bring it to that format.")
    try:
        style = _Style.of(path.read_bytes(), notebook)
        if not lift(
            notebook,
            previous=None,
            receipt_of=stored_receipts(home),
            bundle_of=stored_bundles(home),
            list_bundle_of=stored_list_bundles(home),
        ):
            return False
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(descriptor, "wb") as file:
                file.write(style.dump(notebook))
                file.flush()
                os.fsync(file.fileno())
            shutil.copymode(path, temporary)
            if _seen(path) != before:
                raise NotebookUnreadable(f"{path} was written by somebody else just now. Nothing was changed; run this again.")
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
    except OSError as error:
        raise NotebookUnreadable(f"{path} cannot be written: {error.strerror}. Nothing was changed.") from error
    return True


def _seen(path: Path) -> tuple[int, int, int] | None:
    """What a file differs in once it was written; None where there is none, which whoever reads it says."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


class _Style(msgspec.Struct, frozen=True):
    """How a notebook file is written, so that lifting changes only the lines that it must."""

    indent: int | str | None
    sort_keys: bool
    escaped: bool
    final_newline: bool

    @staticmethod
    def of(raw: bytes, notebook: Json) -> _Style:
        first = re.match(rb"\s*\{\r?\n([ \t]+)", raw)
        indent = first[1].decode("ascii") if first else None
        plain = json.dumps(notebook, ensure_ascii=False)
        return _Style(
            indent=indent,
            sort_keys=plain == json.dumps(notebook, ensure_ascii=False, sort_keys=True),
            escaped=raw.isascii() and not plain.isascii(),
            final_newline=raw.endswith(b"\n"),
        )

    def dump(self, notebook: Json) -> bytes:
        separators = (",", ": ") if self.indent is not None else (", ", ": ")
        text = json.dumps(
            _split_lines(notebook), ensure_ascii=self.escaped, indent=self.indent, sort_keys=self.sort_keys, separators=separators
        )
        # Half of a pair of surrogates, which UTF-8 has not, as JSON escapes it: so it was written by whoever could write it.
        return (text + ("\n" if self.final_newline else "")).encode("utf-8", "backslashreplace")


def _split_lines(notebook: Json) -> Json:
    """Texts of outputs as lists of lines, as nbformat keeps them in a file: a later save by Jupyter then changes nothing."""
    for cell in map(as_object, _array(notebook.get("cells"))):
        for output in map(as_object, _array(cell.get("outputs"))):
            if MARK in as_object(output.get("metadata")) or RECEIPT_MIME in as_object(output.get("data")):
                _split_output(as_object(output.get("data")))
    return notebook


def _split_output(data: Json) -> None:
    for mime, value in data.items():
        if isinstance(value, str) and (mime.startswith("text/") or mime in _SPLIT_MIMES):
            data[mime] = value.splitlines(keepends=True)


def _array(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []
