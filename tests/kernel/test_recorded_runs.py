from __future__ import annotations

import io
import json
import re

import pytest

from cc_executor.agents.claude.decode import ClaudeDecoder
from cc_executor.kernel.render import BUNDLE_BYTES, TerminalView, static_bundle
from cc_executor.model.event import Event, Exited
from cc_executor.model.item import ItemState, Kind
from cc_executor.model.transcript import Bounds, Transcript
from kernel.test_render import receipt
from support.recordings import CLAUDE, Recording


def batches(recording: Recording, size: int) -> list[list[Event]]:
    decoder, data = ClaudeDecoder(), recording.stdout
    decoded: list[list[Event]] = [list(decoder.feed(data[at : at + size])) for at in range(0, len(data), size)]
    return [*decoded, [*decoder.close(), Exited(code=0)]]


@pytest.mark.parametrize("recording", CLAUDE, ids=str)
def test_a_recorded_run_is_shown_alike_in_any_chunking(recording: Recording) -> None:
    bounds = Bounds(lines=10**9, items=10**9, chars=10**12)
    pages: list[Transcript] = []
    for size in (1 << 30, 4096, 301):
        page = Transcript(bounds)
        for batch in batches(recording, size):
            page.feed(batch)
        pages.append(page)
    assert pages[0].items == pages[1].items == pages[2].items
    assert not [item for item in pages[0].items if item.state is ItemState.OPEN]


@pytest.mark.parametrize("recording", CLAUDE, ids=str)
def test_a_recorded_run_reads_well_in_a_terminal_and_in_the_saved_notebook(recording: Recording) -> None:
    stream, page = io.StringIO(), Transcript()
    view = TerminalView(stream)
    for batch in batches(recording, 1000):
        page.feed(batch)
        view.update(page)
    view.close(receipt())
    written = stream.getvalue()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", written)
    for item in page.items:
        if item.kind is Kind.TEXT:
            assert item.text.strip("\n") in written
        elif item.kind is Kind.TOOL:
            assert f"⏺ {item.title}(" in written
    data, metadata = static_bundle(receipt(), page)
    assert len(json.dumps([data, metadata], ensure_ascii=False).encode()) <= BUNDLE_BYTES
