"""How a run is shown outside of its live view: the output that stays, and lines in a terminal."""

from __future__ import annotations

from cc_executor.kernel.terminal import TerminalView
from cc_executor.model.bundle import BUNDLE_BYTES, static_bundle
from cc_executor.model.markdown import markdown_html
from cc_executor.model.receipt import RECEIPT_MIME
from cc_executor.model.words import plain_text

__all__ = ["BUNDLE_BYTES", "RECEIPT_MIME", "TerminalView", "markdown_html", "plain_text", "static_bundle"]
