"""The whole of a run's final text, of which its receipt keeps the ends. Knows a run's journal; starts nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cc_executor.errors import StateUnusable
from cc_executor.model.event import Finished, TextWritten
from cc_executor.model.receipt import Receipt
from cc_executor.runtime.reader import replay
from cc_executor.runtime.seal import LEFT_OUT, TEXT_LIMIT
from cc_executor.store.journal import RunFolder

# Characters. A task's text is held in memory by whoever runs the list; what is longer belongs into a file.
WHOLE_LIMIT: Final = 16 * 2**20


def whole_text(folder: RunFolder, receipt: Receipt, *, mask: Callable[[str], str]) -> str:
    """The text; the receipt's, where the journal was pruned or the whole is longer than `WHOLE_LIMIT`. Blocking, as long as the journal is.

    Parameters
    ----------
    folder : RunFolder
    receipt : Receipt
    mask : callable
        Takes secrets out of a text, as was done with the receipt's.
    """
    if LEFT_OUT not in receipt.text:  # its length tells nothing: what is masked is mostly shorter than it was
        return receipt.text
    said: str | None = None
    written: list[str] = []
    size = 0
    try:
        for events in replay(folder, agent=receipt.agent):
            for event in events:
                match event:
                    case Finished(text=text):
                        said = text
                    case TextWritten(text=text) if receipt.agent == "shell":  # of an agent it is not all the last message
                        written.append(text)
                        size += len(text)
                    case _:
                        pass
            if size > WHOLE_LIMIT:
                return receipt.text
    except StateUnusable:
        return receipt.text
    whole = "".join(written) if said is None else said
    return mask(whole) if TEXT_LIMIT < len(whole) <= WHOLE_LIMIT else receipt.text
