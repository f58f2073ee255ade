"""`cc-executor tasks run`, `check`, `graph` and `schema`: lists of dependent tasks from a terminal. Each command is a few lines over `cc_executor.tasks`."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from pydantic import ValidationError

from cc_executor.api import take_notify
from cc_executor.cli import INTERRUPTED
from cc_executor.cli import notify as notified
from cc_executor.cli.group import exits_with
from cc_executor.cli.kept import AsJson, hint, home, print_json
from cc_executor.cli.keptlists import list_home
from cc_executor.cli.signals import ending
from cc_executor.cli.streams import OUTPUT_LOST, is_about_output, lead_nowhere, sentence
from cc_executor.cli.tasklines import line_of, rows_of
from cc_executor.errors import ControlFailed, InvalidRequest, InvalidTaskList, TaskListNotFound
from cc_executor.model.ansi import clean
from cc_executor.model.graph import mermaid, outline
from cc_executor.model.hook import described
from cc_executor.model.listrecord import ListState, ListStatus, TaskStatus
from cc_executor.model.notice import duration
from cc_executor.model.table import flat
from cc_executor.model.tasklist import TaskList
from cc_executor.model.wrong import as_given, must
from cc_executor.runtime.bounds import bounds_of, keep_cap
from cc_executor.runtime.detached import start_runner
from cc_executor.runtime.listhooks import keep_hooks, keep_notify
from cc_executor.runtime.narrow import has_a_cursor
from cc_executor.store.named import is_there
from cc_executor.taskplan import Plan, kept, plan_of_file
from cc_executor.tasks import cc_execute_task_list, day_bounded, forecast_of, list_result, open_list, reopen, undone_since

if TYPE_CHECKING:
    from cc_executor.model.notify import Notify

CODES: Final[Mapping[str, int]] = {"ok": 0, "failed": 1, "usage_limited": 13, "budget": 14, "stopped": INTERRUPTED}


@exits_with(
    f"{', '.join(f'{code} {status}' for status, code in CODES.items())}, 2 wrong call or nothing could be started, "
    f"{OUTPUT_LOST} ok, but its output could not be written"
)
def run_command(
    file: Annotated[str, typer.Argument(metavar="FILE", show_default=False, help="YAML or Markdown, or the id of a list that is kept.")],
    *,
    cwd: Annotated[str | None, typer.Option(metavar="FOLDER", help="Where the tasks work; the current folder if not given.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do everything again, also what ended well before.")] = False,
    max_cost: Annotated[
        float | None, typer.Option(metavar="DOLLARS", help="Start nothing that would bring the list over this cost.")
    ] = None,
    max_cost_per_day: Annotated[
        float | None, typer.Option(metavar="DOLLARS", help="The same for everything that is run on one day, this list and all else.")
    ] = None,
    on_limit: Annotated[
        str | None, typer.Option(metavar="POLICY", help="What a usage limit with a known end does: stop, or wait until then.")
    ] = None,
    limit_wait_max: Annotated[float | None, typer.Option(metavar="SECONDS", help="How far away that end may be.")] = None,
    notify: notified.Targets = None,
    notify_after: notified.After = None,
    notify_on: notified.On = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Do not wait: print the list's id; the list goes on without this command.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a list to its end. What ended well before is not done again; Ctrl-C, `kill` or a closed terminal stop the list and end what runs."""
    bounds = {"max_cost": max_cost, "max_cost_per_day": max_cost_per_day, "on_limit": on_limit, "limit_wait_max": limit_wait_max}
    planned = _planned(file, cwd, {name: value for name, value in bounds.items() if value is not None})
    given = notified.given(notify, notify_after, notify_on)
    if detach:
        _detached(planned, take_notify(given, os.environ), fresh=fresh, as_json=as_json)
        return
    shown = _Lines(planned.tasks, silent=as_json)
    try:
        with _ended_in_order():
            result = cc_execute_task_list(planned, fresh=fresh, on_state=shown.show, **given)
        code = CODES[result.status]
    except KeyboardInterrupt:
        again = planned.list_id and not fresh
        folder = list_home().find(planned.list_id) if again else list_home().known(planned.tasks)
        if folder is None:  # it came before the list was begun
            raise typer.Exit(INTERRUPTED) from None
        state, is_run = folder.standing()
        shown.show(state)
        result = replace(list_result(folder, planned.tasks, state, home()), status=state.word(is_run=is_run))
        code = INTERRUPTED
    try:
        if as_json:
            print_json({"id": result.list_id, "status": result.status, "summary": result.summary, "tasks": rows_of(result.tasks)})
        else:
            typer.echo(f"{result.status}: {flat(result.summary)}  (list {result.list_id})")
            if said := undone_since(result.tasks, result.list_id, result.home):
                hint(said)
    except OSError as error:
        if code == 0 or not is_about_output(error):
            raise
        lead_nowhere(sys.stdout)  # a status other than ok comes first
        told = sentence(error)
    else:
        told = f"What ended well is kept: `cc-executor tasks run {result.list_id}` goes on." if code == INTERRUPTED else ""
    with suppress(OSError):  # a terminal that was closed: it took both
        if told:
            hint(told)
    raise typer.Exit(code)


@contextmanager
def _ended_in_order() -> Generator[None]:
    """Let `kill`, `timeout` and a closed terminal stop the list as Ctrl-C does: what they left behind would go on and spend, and nobody would see it."""

    def interrupt(_number: int, _frame: object) -> None:
        signal.raise_signal(signal.SIGINT)

    handlers = dict.fromkeys(ending(), interrupt) | {signal.SIGINT: signal.default_int_handler}  # a script's `&` has it ignored
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _planned(file: str, cwd: str | None, bounds: Mapping[str, Any] | None = None) -> Plan:
    planned = _plan_of(file, cwd)
    if not bounds:
        return planned
    try:
        return replace(planned, tasks=planned.tasks.overruled(bounds))
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False)
        said = [f"--{item['loc'][0]}: {must(item['msg'])} {as_given(item['input'])}." for item in wrong]
        raise InvalidTaskList([text.replace("_", "-", 3) for text in said]) from None


def _plan_of(file: str, cwd: str | None) -> Plan:
    if not is_there(file):  # it may be a list itself
        try:
            planned = kept(list_home().find(file))
        except TaskListNotFound:
            pass  # said as of a file, which it most likely was meant to be
        else:
            if cwd is not None:
                raise InvalidRequest(f"The list {planned.list_id} goes on where it was begun, in {planned.tasks.cwd}: leave --cwd out.")
            return planned
    return plan_of_file(file, cwd=cwd)


def _detached(planned: Plan, notify: Notify | None, *, fresh: bool, as_json: bool) -> None:
    """Another process of this command runs the list, and outlives the terminal."""
    named, planned = planned.tasks, day_bounded(planned, os.environ)
    folder = open_list(planned, home(), fresh=fresh)
    known = folder.state()
    if known.status is ListStatus.OPEN and known.is_stopped and folder.is_run():
        raise ControlFailed(f"The list {folder.list_id} is being stopped. Run it again when it has ended.")
    keep_hooks(folder, planned.hooks)
    keep_notify(folder, notify)
    keep_cap(folder, bounds_of(os.environ))
    reopen(folder, planned.tasks, named=named)
    start_runner(folder, environ=os.environ)
    print_json({"id": folder.list_id}) if as_json else typer.echo(folder.list_id)


class _Lines:
    """A line for each task that begins or ends."""

    def __init__(self, tasks: TaskList, *, silent: bool) -> None:
        self._tasks = tasks
        self._silent = silent
        self._before: dict[str, TaskStatus] = {}
        self._notes: set[str] = set()
        self._waits: dict[str, float | None] = {}
        self._until: float | None = None
        self._ticker: threading.Thread | None = None

    def show(self, state: ListState) -> None:
        """Write what has changed. A list is not ended because its lines cannot be written: the last one, which is then not written either, is told."""
        try:
            self._show(state)
        except OSError as error:
            if not is_about_output(error):
                raise
            self._silent = True

    def _show(self, state: ListState) -> None:
        for task in self._tasks.tasks:
            known = state.task(task.id)
            is_new = self._before.get(task.id, TaskStatus.WAITING) is not known.status
            if (is_new or self._waits.get(task.id) != known.until) and not self._silent and known.until != 0:
                typer.echo(line_of(task.id, task.title, known))
            self._before[task.id], self._waits[task.id] = known.status, known.until
        self._count_down(state)
        for note in state.notes if not self._silent else ():
            if note not in self._notes:
                typer.echo(f"! {clean(note)}")
                self._notes.add(note)

    def _count_down(self, state: ListState) -> None:
        """At a terminal, say each second how long the list still waits, below its lines."""
        waits = [task.until for task in state.tasks.values() if task.status is TaskStatus.WAITING and task.until]
        self._until = min(waits) if waits and state.status is ListStatus.OPEN else None
        if self._until is not None and self._ticker is None and not self._silent and has_a_cursor(sys.stdout):
            self._ticker = threading.Thread(target=self._tick, name="cc_executor countdown", daemon=True)
            self._ticker.start()

    def _tick(self) -> None:
        while (until := self._until) is not None:
            sys.stdout.write(f"\r\x1b[K  in {duration(max(0, round(until - time.time())))}")
            sys.stdout.flush()
            time.sleep(1)
        sys.stdout.write("\r\x1b[K")
        self._ticker = None


def check_command(
    file: Annotated[str, typer.Argument(metavar="FILE", show_default=False, help="YAML or Markdown.")],
    *,
    cwd: Annotated[str | None, typer.Option(metavar="FOLDER", help="Where the tasks would work.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with a list, everything at once, or in which order its tasks would run. Starts nothing."""
    try:
        planned = plan_of_file(file, cwd=cwd)
        tasks = planned.tasks
    except InvalidTaskList as error:
        if as_json:
            print_json({"ok": False, "problems": error.problems})
            raise typer.Exit(1) from None
        raise
    forecast = forecast_of(tasks, home())
    if as_json:
        print_json(
            {
                "ok": True,
                "order": [task.id for task in tasks.in_order()],
                "expected": forecast.as_dict(),
                "hooks": described(planned.hooks),
                "hints": [hint.as_dict() for hint in planned.hints()],
            }
        )
        return
    for number, task in enumerate(tasks.in_order(), 1):
        needs = f"  needs {', '.join(task.all_needs)}" if task.all_needs else ""
        group = f"  beside group {task.group}" if task.group else ""
        usual = [f"usually {words}" if (words := forecast.words(task.id)) else "", forecast.cost_words(task.id)]
        estimate = "".join(f"  {part}" for part in usual if part)
        typer.echo(f"{number:>3}. {task.id:<20} {task.kind.value:<6} {flat(task.title)}{needs}{group}{estimate}".rstrip())
    if expected := forecast.summary():
        typer.echo(expected)
    for line in described(planned.hooks):
        typer.echo(clean(line))
    for found in planned.hints():
        hint(clean(str(found)))


def schema_command() -> None:
    """Print the JSON Schema of task lists, by which editors complete and check them."""
    from cc_executor.cli.listschema import list_schema  # it looks at all commands

    typer.echo(json.dumps(list_schema(), ensure_ascii=False, indent=2))


def graph_command(
    file: Annotated[str, typer.Argument(metavar="FILE", show_default=False, help="YAML or Markdown, or the id of a list that is kept.")],
    *,
    cwd: Annotated[str | None, typer.Option(metavar="FOLDER", help="Where the tasks would work.")] = None,
    as_mermaid: Annotated[bool, typer.Option("--mermaid", help="As a Mermaid flow chart, for Markdown pages.")] = False,
) -> None:
    """Print what needs what. Needs that follow from others are left out."""
    order = _planned(file, cwd).tasks.in_order()
    typer.echo(mermaid(order) if as_mermaid else outline(order))
