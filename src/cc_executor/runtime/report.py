"""Reports of runs and lists from what is kept on disk. Reads journals; the fold is `cc_executor.model.report`, the pages are its renderers'."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cc_executor.errors import InvalidRequest, RunNotFound, StateUnusable, TaskListNotFound
from cc_executor.model.event import Event
from cc_executor.model.listrecord import Begun
from cc_executor.model.listreport import ListReport, list_report
from cc_executor.model.receipt import Receipt
from cc_executor.model.report import RunReport, run_report
from cc_executor.policy.redact import Redactor
from cc_executor.runtime.reader import JournalReader
from cc_executor.shim import records
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder
from cc_executor.store.tasklists import ListFolder, ListHome

STEPS: Final = 5_000  # moments that are told apart in one run: a fiftieth of a percent of its length
RUNS: Final = 200  # runs of a list that are told in full; each is read whole
PAGES: Final = (".html", ".htm")  # endings of files, and what is written there
TEXTS: Final = (".md", ".markdown", ".txt")


@dataclass(frozen=True, slots=True)
class Report:
    """A report, for people.

    Attributes
    ----------
    markdown : str
    html : str
        A whole page: no script, nothing loaded from anywhere, light and dark by the reader's own setting.
    """

    markdown: str
    html: str

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it to a file: HTML if the name ends in ``.html`` or ``.htm``, Markdown if in ``.md``, ``.markdown``, ``.txt`` or in nothing of the kind.

        Raises
        ------
        InvalidRequest
            It has another ending, or the file cannot be written.
        """
        target = Path(os.path.expanduser(path))  # a user that there is not stays as written, and is no folder
        ending = target.suffix.lower()
        if ending not in {*PAGES, *TEXTS, ""}:
            raise InvalidRequest(
                f"A report cannot be written as {ending}: a name in {', '.join(PAGES)} gives a page, which a browser prints or saves as PDF, "
                f"one in {', '.join(TEXTS)} Markdown."
            )
        try:
            target.write_text(self.html if ending in PAGES else self.markdown, "utf-8")
        except OSError as error:
            raise InvalidRequest(f"The report cannot be written to {target}: {error.strerror}.") from error
        return target

    def __repr__(self) -> str:
        return self.markdown

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        from cc_executor.model.reportpage import notebook_html

        return {"text/plain": self.markdown, "text/html": notebook_html(self.markdown)}


def report_of_run(folder: RunFolder) -> Report:
    """The report of a run that has a sealed receipt. Blocking: reads its journal.

    Raises
    ------
    RunNotFound
        It has none.
    StateUnusable
    """
    from cc_executor.model.reportpage import run_page
    from cc_executor.model.reporttext import run_text

    told = told_run(folder)
    return Report(run_text(told), run_page(told))


def report_of_list(folder: ListFolder, home: StateHome) -> Report:
    """The report of a list, ended or not. Blocking: reads the journals of its runs.

    Raises
    ------
    StateUnusable
    """
    from cc_executor.model.reportpage import list_page
    from cc_executor.model.reporttext import list_text

    told = told_list(folder, home)
    return Report(list_text(told), list_page(told))


def report_named(home: StateHome, name: str) -> Report:
    """The report of the run or of the list with this id, or whose id begins so; of the newest run without a name.

    Raises
    ------
    RunNotFound
        There is neither, or there are several.
    """
    if not name:
        return report_of_run(home.pick(""))
    try:
        return report_of_list(ListHome(home).find(name), home)
    except TaskListNotFound as error:
        no_list = str(error)
    try:
        folder = home.find(name)
    except RunNotFound as error:
        raise RunNotFound(f"{error} {no_list}") from None
    return report_of_run(folder)


def told_run(folder: RunFolder) -> RunReport:
    """The records of a run, folded."""
    receipt = folder.receipt()
    if receipt is None:
        raise RunNotFound(
            f"Run {folder.run_id} has no receipt yet: it goes on, or nobody has followed it to its end (`cc-executor show {folder.run_id}`)."
        )
    label, mask = "", Redactor().text  # a page travels as a receipt does; what was in the environment is masked in the journal
    with suppress(StateUnusable):
        label = folder.request().label
    try:
        return run_report(receipt, TimedReader(folder, agent=receipt.agent).timed(), label=label, mask=mask)
    except (StateUnusable, InvalidRequest):  # the journal is gone or damaged; the receipt stands for itself
        return run_report(receipt, (), label=label, mask=mask)


def told_list(folder: ListFolder, home: StateHome) -> ListReport:
    """The records of a list and of its runs, folded."""
    tasks, journal = folder.tasks(), list(folder.records())
    newest = {record.task: record.run_id for record in journal if isinstance(record, Begun) and record.run_id}
    receipts: dict[str, Receipt] = {}
    runs: dict[str, RunReport] = {}
    for record in journal:
        if not isinstance(record, Begun) or not record.run_id or record.run_id in receipts:
            continue
        with suppress(RunNotFound, StateUnusable):
            run = home.find(record.run_id)
            if (receipt := run.receipt()) is not None:
                receipts[record.run_id] = receipt
                if newest[record.task] == record.run_id and len(runs) < RUNS:
                    runs[record.run_id] = told_run(run)
    tasks = tasks.model_copy(update={"name": Redactor().text(tasks.name)})
    return list_report(folder.list_id, tasks, journal, runs, receipts)


class TimedReader(JournalReader):
    """A cursor that knows when what it reads was written, as exactly as the sparse index does (20 ms)."""

    def __init__(self, folder: RunFolder, *, agent: str) -> None:
        super().__init__(folder, agent=agent)
        self._t = 0.0
        self._starts: dict[str, list[int]] = {stream: list[int]() for stream in records.STREAMS}
        self._times: dict[str, list[float]] = {stream: list[float]() for stream in records.STREAMS}
        self._load()

    def timed(self) -> Iterator[tuple[float, list[Event]]]:
        """Everything, each batch with the seconds since the start."""
        while (events := self.read()) is not None:
            self._t = max([self._t, *(float(getattr(event, "t", 0.0)) for event in events)])
            yield self._t, events
        if self.exited is None:
            yield self._t, self.close()

    def _load(self) -> None:
        count = self._folder.size(records.INDEX_FILE) // records.INDEX.size
        if not count:
            return
        _, longest, _, _ = records.INDEX.unpack(self._index_bytes(count - 1, 1))
        step = longest / STEPS
        for first in range(0, count, 4096):
            for offset, t, _, number in records.INDEX.iter_unpack(self._index_bytes(first, 4096)):
                if number >= len(records.STREAMS):
                    continue
                stream = records.STREAMS[int(number)]
                times = self._times[stream]
                if not times or t - times[-1] >= step:
                    self._starts[stream].append(offset)
                    times.append(t)

    def _read_streams(self, limits: dict[str, int]) -> list[Event] | None:
        found: tuple[float, str, int] | None = None
        for stream in records.STREAMS:
            offset = self._offset[stream]
            end = limits.get(stream, self._folder.size(stream))
            if offset >= end:
                continue
            place = bisect_right(self._starts[stream], offset)
            t = self._times[stream][place - 1] if place else self._t
            until = min(end, self._starts[stream][place]) if place < len(self._starts[stream]) else end
            if found is None or t < found[0]:
                found = (t, stream, until)
        if found is None:
            return None
        t, chosen, until = found
        self._t = max(self._t, t)
        bounds: dict[str, int] = {**self._offset, chosen: until}
        return super()._read_streams(bounds)
