"""What the history says about runs to come. Blocking (some 8 ms); never fails and never waits: without a history there is no estimate."""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cc_executor.errors import StateUnusable
from cc_executor.model.request import RunRequest
from cc_executor.policy.kind import kind_of
from cc_executor.policy.predict import LEAST, Features, Forecast, PastRun, Prediction, Range, spread_words, total
from cc_executor.runtime.history import ask
from cc_executor.runtime.plan import Plan
from cc_executor.store import history as store
from cc_executor.store.history import HistoryIndex, PastRow, Unusable
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder

if TYPE_CHECKING:  # a list is foreseen only by who has it
    from cc_executor.model.tasklist import Task, TaskList

logger = logging.getLogger(__name__)

POOL: Final = 200  # newest runs of the agent; reading them and learning from them takes some 8 ms
ALIKE: Final = 50  # and the newest with the same prompt or label, however long ago
OWN_MODEL: Final = 5  # runs of the asked model from which on those of other models are left out
ENDED: Final = "ok"

Only = Callable[[str], bool]


def load_now() -> float | None:
    """The machine's load per core, averaged over a minute; None where nobody says."""
    try:
        return round(os.getloadavg()[0] / (os.cpu_count() or 1), 3)
    except OSError:
        return None


def digest_of(prompt: str) -> str:
    """The prompt as receipts name it."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()


def features_of(request: RunRequest, *, load: float | None = None) -> Features:
    """What is known of a run before it starts."""
    category, complexity = kind_of(request.prompt, agent=request.agent)
    return Features(
        category=category,
        complexity=complexity,
        prompt_digest=digest_of(request.prompt),
        label=request.label,
        cwd=request.cwd,
        load=load,
    )


def past_run(row: PastRow, *, rehearsed: bool) -> PastRun:
    """A row as the estimator takes it. What did not end well would have taken longer."""
    return PastRun(
        Features(
            category=row.category,
            complexity=row.complexity,
            prompt_digest=row.prompt_digest,
            label=row.label,
            cwd=row.cwd,
            load=row.load,
        ),
        seconds=row.active,
        cost=None if rehearsed else row.cost,
        has_ended=row.outcome == ENDED,
    )


def forecast_for(root: Path, requests: Sequence[RunRequest], *, only: Only | None = None) -> Forecast:
    """What the runs of the state folder `root` say about runs like these, which have one agent, script and model in common."""
    try:
        with HistoryIndex(root).reading(patience=store.WRITE_PATIENCE) as connection:
            return learned(connection, requests, only=only)
    except Unusable as error:
        logger.debug("no history to predict from: %s", error)
        return Forecast()


def learned(connection: sqlite3.Connection, requests: Sequence[RunRequest], *, only: Only | None = None) -> Forecast:
    """The same from an index that is open. Raises `Unusable`."""
    if only is not None:
        store.restrict(connection, only)
    first = requests[0]
    common = {"agent": first.agent, "rehearsed": first.rehearse or ""}
    pool: list[PastRow] = []
    if first.model:
        pool = store.newest(connection, limit=POOL, **common, asked_model=first.model)
    if sum(row.outcome == ENDED for row in pool) < OWN_MODEL:
        pool = store.newest(connection, limit=POOL, **common)
    rows = {row.run_id: row for row in pool}
    if len(pool) == POOL:  # else that is all there is
        for name, value in _alike(requests):
            rows |= {row.run_id: row for row in store.newest(connection, limit=ALIKE, **common, **{name: value})}
    return Forecast(past_run(rows[run_id], rehearsed=first.rehearse is not None) for run_id in sorted(rows))


def _alike(requests: Sequence[RunRequest]) -> list[tuple[str, str]]:
    """The prompts and labels, each once."""
    prompts = {("prompt_digest", digest_of(request.prompt)) for request in requests}
    return sorted(prompts | {("label", request.label) for request in requests if request.label})


def predict(root: Path, request: RunRequest, *, load: float | None) -> Prediction:
    """What is expected of one run. Never raises."""
    features = features_of(request, load=load)
    try:
        return forecast_for(root, [request]).predict(features)
    except Exception:  # an estimate is a courtesy: the run must start
        logger.warning("no estimate could be made", exc_info=True)
        return Prediction(category=features.category, complexity=features.complexity)


def predict_all(root: Path, requests: Sequence[RunRequest], *, load: float | None, only: Only | None = None) -> list[Prediction]:
    """What is expected of many runs; the history is read once for each agent, script and model. `only`: as for `estimate`. Never raises."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for number, request in enumerate(requests):
        groups.setdefault((request.agent, request.rehearse or "", request.model or ""), []).append(number)
    found: dict[int, Prediction] = {}
    for numbers in groups.values():
        try:
            forecast = forecast_for(root, [requests[number] for number in numbers], only=only)
            found |= {number: forecast.predict(features_of(requests[number], load=load)) for number in numbers}
        except Exception:  # as above
            logger.warning("no estimate could be made", exc_info=True)
            found |= {number: Prediction(category="", complexity="") for number in numbers}
    return [found[number] for number in range(len(requests))]


def usual_words(folder: RunFolder) -> str:
    """How long the run was expected to take when it started, for its view: ``12–40 s (n=23)``; empty without an estimate."""
    try:
        prediction = Plan.of(folder).prediction
    except StateUnusable:
        return ""
    return prediction.seconds.words() if prediction is not None and prediction.seconds is not None else ""


def estimate(home: StateHome, request: RunRequest, *, environ: Mapping[str, str], only: Only | None = None) -> tuple[Prediction, list[str]]:
    """What is expected of a run that somebody asks about, with a history that has every sealed run; and what there is to say about that.

    With `only`, by the runs whose ids it takes.

    Raises
    ------
    StateUnusable
    """
    features = features_of(request, load=load_now())
    return ask(home, lambda connection: learned(connection, [request], only=only).predict(features), environ=environ)


def estimate_lines(prediction: Prediction) -> list[str]:
    """An estimate for people."""
    lines = [f"{prediction.category}, {prediction.complexity}"]
    for name, item in (("time", prediction.seconds), ("cost", prediction.cost)):
        if item is not None:
            at_least = " or more" if item.is_at_least else ""
            lines.append(
                f"{name}  {spread_words(item.p50, item.p90, item.unit)}{at_least}  (half of such runs, nine of ten; "
                f"{item.based_on} runs of {item.basis.value}; confidence {item.confidence.value})"
            )
    if prediction.seconds is None:
        lines.append(f"no estimate: fewer than {LEAST} runs like it have ended well")
    return lines


# --- task lists ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ListForecast:
    """What is expected of a task list.

    Attributes
    ----------
    tasks : dict of str to Prediction
        By id; callables are not in it.
    seconds, cost : Range or None
        Of all tasks that there is an estimate for; tasks of one group run side by side.
    timed, count : int
        Tasks with an estimate of the time, and all.
    """

    tasks: dict[str, Prediction]
    seconds: Range | None
    cost: Range | None
    timed: int
    count: int

    def words(self, task_id: str) -> str:
        """A task's time; empty without an estimate."""
        found = self.tasks.get(task_id)
        return found.seconds.words() if found is not None and found.seconds is not None else ""

    def cost_words(self, task_id: str) -> str:
        """A task's cost, likewise."""
        found = self.tasks.get(task_id)
        return found.cost.words() if found is not None and found.cost is not None else ""

    def summary(self) -> str:
        """The whole list in one sentence; empty without any estimate."""
        parts = [spread_words(item.p50, item.p90, item.unit) for item in (self.seconds, self.cost) if item is not None]
        if not parts:
            return ""
        rest = "" if self.timed == self.count else f", for {self.timed} of {self.count} tasks"
        return f"Expected: {', '.join(parts)}{rest} (half of such lists, nine of ten)."

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "tasks": {name: asdict(prediction) for name, prediction in self.tasks.items()},
            "seconds": None if self.seconds is None else asdict(self.seconds),
            "cost": None if self.cost is None else asdict(self.cost),
            "estimated": self.timed,
        }


def forecast_list(
    tasks: TaskList, root: Path, request_of: Callable[[Task], RunRequest | None], *, only: Only | None = None
) -> ListForecast:
    """What is expected of a list before it runs. Never raises.

    Parameters
    ----------
    tasks : TaskList
    root : Path
        The state folder.
    request_of : callable
        The run of a task; None for one that has none.
    only : callable, optional
        By which runs, told by their ids; by all if not given.
    """
    asked = {task.id: request for task in tasks.tasks if (request := request_of(task)) is not None}
    found = dict(zip(asked, predict_all(root, list(asked.values()), load=load_now(), only=only), strict=True))
    blocks: dict[str, list[Range]] = {}
    for number, task in enumerate(tasks.tasks):
        if (prediction := found.get(task.id)) is not None and prediction.seconds is not None:
            blocks.setdefault(f"group {task.group}" if task.group else f"task {number}", []).append(prediction.seconds)
    costs = [prediction.cost for prediction in found.values() if prediction.cost is not None]
    return ListForecast(
        tasks=found,
        seconds=total([_side_by_side(block, tasks.parallel) for block in blocks.values()]),
        cost=total(costs),
        timed=sum(prediction.seconds is not None for prediction in found.values()),
        count=len(tasks.tasks),
    )


def _side_by_side(block: Sequence[Range], width: int) -> Range:
    """A group as one piece: each takes the first place that is free."""
    if len(block) == 1:
        return block[0]

    def span(amounts: Sequence[float]) -> float:
        places = [0.0] * max(1, width)
        for amount in amounts:
            places[places.index(min(places))] += amount
        return max(places)

    p50 = span([item.p50 for item in block])
    p90 = max(p50, span([item.p90 for item in block]))
    widest = max(block, key=lambda item: item.p90)
    return Range(
        expected=min(p90, span([item.expected for item in block])),
        p50=p50,
        p90=p90,
        unit=widest.unit,
        based_on=min(item.based_on for item in block),
        basis=widest.basis,
        confidence=widest.confidence,
        is_at_least=any(item.is_at_least for item in block),
    )
