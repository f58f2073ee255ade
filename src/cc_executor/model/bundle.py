"""A finished run as the one output that stays in the notebook. Pure: a receipt and a transcript in, a MIME bundle out."""

from __future__ import annotations

import json
from typing import Any, Final

from cc_executor.model.card import card
from cc_executor.model.receipt import RECEIPT_MIME, Receipt
from cc_executor.model.transcript import Transcript
from cc_executor.model.words import plain_text

BUNDLE_BYTES: Final = 200 * 1024  # one cell of a notebook that people keep in git and mail around
# Of these, plain text and card take at most 80 KB; a receipt beyond the rest (hundreds of files, a huge structured result) stays with the run.
RECEIPT_BYTES: Final = 112 * 1024


def static_bundle(receipt: Receipt, transcript: Transcript | None = None) -> tuple[dict[str, object], dict[str, object]]:
    """The MIME bundle and the output metadata of a finished run.

    Parameters
    ----------
    receipt : Receipt
        Sealed.
    transcript : Transcript or None
        What the run's page holds; None shows the receipt alone.

    Returns
    -------
    data : dict
        ``text/plain``, ``text/html`` and the receipt; at most `BUNDLE_BYTES` as JSON, mostly far below 64 KB. A receipt that has no room is replaced by
        its run id, its digest and a sentence that says so.
    metadata : dict
        ``{"cc_executor": {"run_id", "digest", "status"}}``.
    """
    roots = transcript.roots if transcript is not None else (receipt.cwd,)
    items = transcript.items if transcript is not None else ()
    left_out = transcript.elided_lines if transcript is not None else 0
    data: dict[str, object] = {
        "text/plain": plain_text(receipt),
        "text/html": card(receipt, items, left_out=left_out, roots=roots),
        RECEIPT_MIME: _receipt(receipt),
    }
    mark = {"run_id": receipt.run_id, "digest": receipt.digest, "status": receipt.outcome.kind.value}
    return data, {"cc_executor": mark}


def _receipt(receipt: Receipt) -> dict[str, Any]:
    whole = receipt.model_dump(mode="json")
    size = len(json.dumps(whole, ensure_ascii=False).encode("utf-8", "replace"))
    if size <= RECEIPT_BYTES:
        return whole
    return {
        "schema_version": receipt.schema_version,
        "run_id": receipt.run_id,
        "digest": receipt.digest,
        "left_out": f"The receipt has {size:,} bytes and is kept with the run: %cc receipt {receipt.run_id}",
    }
