"""How long a run will take and what it will cost, from the runs that there were. One estimator; pure: no clock, no file, no randomness.

A run resembles others: those with the same prompt, the same label, in the same folder of the same category, of the same category anywhere, and all of its
agent. The median of each group is a Kaplan-Meier median, in which runs that were cut off or failed count as "it would have taken longer than that"; the
medians are shrunk from the general to the specific, so that three runs of a prompt count and do not decide alone. How wide the range is, is not modelled:
every past run was predicted by the runs before it in the same way, and the quantiles of those errors are the range (cut-off ones censored again). So the
range covers what it says because it was measured, with the estimator's own mistakes in it.

Kaplan and Meier, "Nonparametric estimation from incomplete observations", J. Am. Stat. Assoc. 53 (1958); empirical Bayes shrinkage as in Efron and Morris
(1977); errors of held-out predictions as the range: Vovk's conformal prediction, here with censored errors.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from cc_executor.model.notice import duration, money
from cc_executor.policy.kind import COMMAND

LEAST: Final = 5  # runs that came to their own end; below that there is no estimate
GROUP: Final = 25  # newest runs of a group that its median is made of: people change their prompts, and agents get faster
GENERAL_GROUP: Final = 100  # of all runs of an agent, among which a bad day of failures must not hide what went before
ERRORS: Final = 300  # newest errors that the range is made of
SHRINK: Final = 2.0  # a group of so many runs counts as much as what is known in general; 1, 2 and 4 gave the same coverage in the replay
OTHERS: Final = 10.0  # all errors outside the run's own group count together as so many
PRIOR: Final = 5.0  # so many errors of a plain spread are taken for granted: one outlier among ten runs is not a tenth of the future
PRIOR_SPREAD: Final = 0.8  # standard deviation of that, in logarithms: a factor of 2.8 between median and 90th percentile
# Quantiles of a normal distribution at 5 %, 15 %, … 95 %.
_NORMAL: Final = (-1.645, -1.036, -0.674, -0.385, -0.126, 0.126, 0.385, 0.674, 1.036, 1.645)

_NINETY: Final = 1.2816  # the 90th percentile of a normal distribution
_WIDEST: Final = 1.5  # of one run's spread in a sum, in logarithms: beyond that its variance alone would be the sum

FLOOR: Final = 1e-3  # a millisecond, a tenth of a cent: less than anybody plans with, and has a logarithm
CEILING: Final = 1e9
_CLIP: Final = 20.0  # of an error, in logarithms: finite whatever is stored
_EPSILON: Final = 1e-9  # of a sum of weights

LOAD_LEAST: Final = 50  # errors with a known load before it may be used
LOAD_GAIN: Final = 0.05  # it has to lessen the errors of the past by so much
_LOAD_RIDGE: Final = 5.0
_LOAD_CLIP: Final = 1.0


class Confidence(StrEnum):
    """How much to make of a range."""

    LOW = "low"  # fewer than 10 runs, or wider than ten times, or every long run was cut off
    MEDIUM = "medium"
    HIGH = "high"  # 20 runs or more of this very group, and no wider than three times


HIGH_RUNS: Final = 20
LOW_RUNS: Final = 10
HIGH_WIDTH: Final = 3.0
LOW_WIDTH: Final = 10.0


class Basis(StrEnum):
    """Which past runs an estimate is based on."""

    PROMPT = "the same prompt"
    LABEL = "the same label"
    FOLDER = "this folder and category"
    CATEGORY = "this category and complexity"
    AGENT = "all runs of this agent"


_ORDER: Final = (Basis.AGENT, Basis.CATEGORY, Basis.FOLDER, Basis.LABEL, Basis.PROMPT)  # from general to specific


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a run before it starts. `load`: per core, at the start; None if unknown."""

    category: str
    complexity: str
    prompt_digest: str = ""
    label: str = ""
    cwd: str = ""
    load: float | None = None


class PastRun(msgspec.Struct, frozen=True):
    """A run that is over.

    Attributes
    ----------
    seconds : float
        At work.
    cost : float or None
        US dollars; None when nobody said.
    has_ended : bool
        Whether it came to its own good end; False: it was cut off or failed, and would have taken at least so long.
    """

    features: Features
    seconds: float
    cost: float | None = None
    has_ended: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A quantity as a range.

    Attributes
    ----------
    expected : float
        The mean, with everything beyond `p90` counted as `p90`.
    p50, p90 : float
        Half, and nine of ten, of such runs stay below.
    unit : str
        ``"s"`` or ``"USD"``.
    based_on : int
        How many past runs of `basis` it rests on.
    is_at_least : bool
        The longest runs were all cut off: nobody knows how long they would have been, and `p90` is a lower bound.
    """

    expected: float
    p50: float
    p90: float
    unit: str
    based_on: int
    basis: Basis
    confidence: Confidence
    is_at_least: bool = False

    def words(self) -> str:
        """For people: ``12–40 s (n=23)``."""
        return f"{spread_words(self.p50, self.p90, self.unit)}{' or more' if self.is_at_least else ''} (n={self.based_on})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What is expected of a run. `seconds` and `cost` are None where fewer than `LEAST` runs are known: no estimate."""

    category: str
    complexity: str
    seconds: Range | None = None
    cost: Range | None = None
    is_load_used: bool = False


def spread_words(p50: float, p90: float, unit: str = "s") -> str:
    """A range for people: ``12–40 s``."""
    low, high = (money(p50), money(p90)) if unit == "USD" else (duration(p50), duration(p90))
    return low if low == high else f"{_without_unit(low, high)}–{high}"


def _without_unit(low: str, high: str) -> str:
    """``12 s`` before ``40 s`` is ``12``."""
    number, _, unit = low.rpartition(" ")
    return number if number and " " not in number and high.endswith(f" {unit}") and high.count(" ") == 1 else low


# --- quantiles of censored data ----------------------------------------------------------------------------------------


def quantiles(observations: Sequence[tuple[float, bool, float]], levels: Sequence[float]) -> tuple[list[float], bool]:
    """Weighted Kaplan-Meier quantiles.

    Parameters
    ----------
    observations : sequence of (value, is_event, weight)
        `is_event` False: the true value is greater than this one. At least one.
    levels : sequence of float
        Ascending, between 0 and 1.

    Returns
    -------
    (list of float, bool)
        One value for each level, ascending; and whether every level was reached. One that was not is given the greatest value that was seen, which is a lower
        bound: the greatest ones are all censored.
    """
    ordered = sorted(observations, key=lambda item: (item[0], not item[1]))
    at_risk = math.fsum(weight for _, _, weight in ordered)
    survival, found, wanted = 1.0, list[float](), list(levels)
    for value, is_event, weight in ordered:
        if is_event and at_risk > 0:
            survival *= max(0.0, 1.0 - weight / at_risk)
            while wanted and survival <= 1.0 - wanted[0] + _EPSILON:
                found.append(value)
                del wanted[0]
            if not wanted:
                return found, True
        at_risk -= weight
    return [*found, *[ordered[-1][0]] * len(wanted)], not wanted


# --- the estimator -----------------------------------------------------------------------------------------------------


class _Group:
    """The newest runs of one group, with their Kaplan-Meier median."""

    __slots__ = ("_limit", "_median", "_newest", "_sorted", "count", "ended", "ended_ever")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._newest: deque[tuple[float, bool]] = deque()
        self._sorted: list[tuple[float, bool]] = []  # censored ones after events of the same value
        self._median: float | None = None
        self.ended = 0  # among the newest
        self.ended_ever = 0
        self.count = 0

    def add(self, value: float, *, is_event: bool) -> None:
        if len(self._newest) == self._limit:
            oldest = self._newest.popleft()
            self._sorted.remove(oldest)
            self.ended -= not oldest[1]
        item = (value, not is_event)
        self._newest.append(item)
        insort(self._sorted, item)
        self.ended += is_event
        self.ended_ever += is_event
        self.count += 1
        self._median = None

    def median(self) -> float:
        if self._median is None:
            survival, at_risk, found = 1.0, len(self._sorted), self._sorted[-1][0]
            for value, is_censored in self._sorted:
                if not is_censored:
                    survival *= 1.0 - 1.0 / at_risk
                    if survival <= 0.5 + _EPSILON:  # the median
                        found = value
                        break
                at_risk -= 1
            self._median = found
        return self._median


class _Error(msgspec.Struct, frozen=True):
    """How far a past run was from what was predicted for it, as a logarithm."""

    value: float
    is_event: bool
    group: tuple[str, ...] | None  # the group that it was predicted from
    load: float | None


class _Load:
    """Whether the load of the machine explains errors: a line through them, tried on each before it is learned from."""

    def __init__(self) -> None:
        self._xs = self._xx = self._xy = self._n = 0.0
        self._plain = self._adjusted = 0.0
        self._tried = 0

    def learn(self, load: float, error: float) -> None:
        x, clipped = math.log1p(max(0.0, load)), max(-_LOAD_CLIP, min(_LOAD_CLIP, error))
        if self._n >= LOAD_LEAST // 2:
            self._tried += 1
            self._plain += abs(clipped)
            self._adjusted += abs(clipped - self.effect(load))
        mean = self._xs / self._n if self._n else x
        self._n += 1
        self._xs += x
        self._xx += (x - mean) ** 2
        self._xy += (x - mean) * clipped

    def effect(self, load: float) -> float:
        """What the line adds to an error at this load."""
        if not self._n:
            return 0.0
        return max(0.0, self._xy / (self._xx + _LOAD_RIDGE)) * (math.log1p(max(0.0, load)) - self._xs / self._n)

    @property
    def gain(self) -> float:
        """By which share it would have lessened the errors of the past; 0 while too little is known."""
        return 1.0 - self._adjusted / self._plain if self._tried >= LOAD_LEAST // 2 and self._plain > 0 else 0.0


class _Quantity:
    """One quantity of the runs of one agent: seconds or dollars."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self._groups: dict[tuple[str, ...], _Group] = {}
        self._errors: deque[_Error] = deque(maxlen=ERRORS)
        self.load = _Load()

    def learn(self, features: Features, amount: float, *, is_event: bool) -> None:
        value = math.log(max(FLOOR, min(CEILING, amount)))
        keys = _keys(features)
        if (center := self._center(keys)) is not None:
            error = max(-_CLIP, min(_CLIP, value - center))
            self._errors.append(_Error(error, is_event, self._own(keys), features.load))
            if is_event and features.load is not None:
                self.load.learn(features.load, error)
        for key in keys:
            if key is not None:
                group = self._groups.get(key)
                if group is None:
                    group = self._groups[key] = _Group(GENERAL_GROUP if key == keys[0] else GROUP)
                group.add(value, is_event=is_event)

    def _center(self, keys: _Keys) -> float | None:
        """The median that is expected, as a logarithm: from the general to the specific."""
        center: float | None = None
        for key in keys:
            group = self._groups.get(key) if key is not None else None
            if group is not None and group.ended:
                center = group.median() if center is None else (group.ended * group.median() + SHRINK * center) / (group.ended + SHRINK)
        return center

    def _own(self, keys: _Keys) -> tuple[str, ...] | None:
        """The most specific group with enough runs to speak for itself."""
        for key in reversed(keys):
            group = self._groups.get(key) if key is not None else None
            if group is not None and group.count >= LEAST and group.ended:
                return key
        return None

    def predict(self, features: Features) -> Range | None:
        keys = _keys(features)
        general = self._groups.get(keys[0]) if keys[0] is not None else None
        center, own = self._center(keys), self._own(keys)
        if general is None or general.ended_ever < LEAST or center is None or own is None:
            return None
        if own == keys[0] and features.category.startswith(COMMAND):
            return None  # what `make` takes says nothing about `sleep`
        uses_load = self.uses_load and features.load is not None
        observations = self._observed(own, uses_load=uses_load)
        (low, high), is_reached = quantiles(observations, (0.5, 0.9))
        if uses_load and features.load is not None:
            center += self.load.effect(features.load)
        expected = _restricted_mean(observations, high)
        p50, expected, p90 = (min(CEILING, max(FLOOR, math.exp(center + log))) for log in (low, expected, high))
        based_on, basis = self._groups[own].count, _ORDER[keys.index(own)]
        at_least = not is_reached
        return Range(
            expected=expected,
            p50=p50,
            p90=p90,
            unit=self.unit,
            based_on=based_on,
            basis=basis,
            confidence=_confidence(based_on, p90 / p50, is_specific=basis is not Basis.AGENT, is_at_least=at_least),
            is_at_least=at_least,
        )

    @property
    def uses_load(self) -> bool:
        """Whether the load has proved to help."""
        return self.load.gain >= LOAD_GAIN

    def _observed(self, own: tuple[str, ...], *, uses_load: bool) -> list[tuple[float, bool, float]]:
        """The errors with their weights."""
        others = sum(error.group != own for error in self._errors)
        weight = min(1.0, OTHERS / others) if others else 0.0
        found = [(PRIOR_SPREAD * z, True, PRIOR / len(_NORMAL)) for z in _NORMAL]
        for error in self._errors:
            shift = self.load.effect(error.load) if uses_load and error.load is not None else 0.0
            found.append((error.value - shift, error.is_event, 1.0 if error.group == own else weight))
        return found


_Keys = tuple[tuple[str, ...] | None, ...]


def _keys(features: Features) -> _Keys:
    """The groups that a run belongs to, in `_ORDER`; None for one that it has no name for."""
    return (
        ("agent",),
        ("category", features.category, features.complexity),
        ("folder", features.cwd, features.category) if features.cwd else None,
        ("label", features.label) if features.label else None,
        ("prompt", features.prompt_digest) if features.prompt_digest else None,
    )


def _restricted_mean(observations: Sequence[tuple[float, bool, float]], high: float) -> float:
    """The logarithm of the mean of exp(error), where what is greater than `high` counts as `high`."""
    ordered = sorted(observations, key=lambda item: (item[0], not item[1]))
    at_risk = math.fsum(weight for _, _, weight in ordered)
    survival, total = 1.0, 0.0
    for value, is_event, weight in ordered:
        if value >= high:
            break
        if is_event and at_risk > 0:
            step = survival * min(1.0, weight / at_risk)
            survival -= step
            total += step * math.exp(value)
        at_risk -= weight
    return math.log(max(FLOOR**3, total + max(0.0, survival) * math.exp(high)))


def _confidence(count: int, width: float, *, is_specific: bool, is_at_least: bool) -> Confidence:
    if is_at_least or count < LOW_RUNS or width > LOW_WIDTH:
        return Confidence.LOW
    return Confidence.HIGH if is_specific and count >= HIGH_RUNS and width <= HIGH_WIDTH else Confidence.MEDIUM


class Forecast:
    """What past runs of one agent say about the next ones. Learns one run after the other, oldest first."""

    def __init__(self, past: Iterable[PastRun] = ()) -> None:
        self._seconds = _Quantity("s")
        self._cost = _Quantity("USD")
        for run in past:
            self.learn(run)

    def learn(self, run: PastRun) -> None:
        """Take a run that is over."""
        if math.isfinite(run.seconds) and run.seconds >= 0:
            self._seconds.learn(run.features, run.seconds, is_event=run.has_ended)
        if run.cost is not None and math.isfinite(run.cost) and run.cost >= 0:
            self._cost.learn(run.features, run.cost, is_event=run.has_ended)

    def predict(self, features: Features) -> Prediction:
        """What is to be expected of a run with these features."""
        return Prediction(
            category=features.category,
            complexity=features.complexity,
            seconds=self._seconds.predict(features),
            cost=self._cost.predict(features),
            is_load_used=self._seconds.uses_load and features.load is not None,
        )

    @property
    def load_gain(self) -> float:
        """By which share the load of the machine would have lessened the errors of past predictions of the time. Used from `LOAD_GAIN` on."""
        return self._seconds.load.gain


# --- several runs ------------------------------------------------------------------------------------------------------


def total(ranges: Sequence[Range]) -> Range | None:
    """The range of a sum of independent runs: as narrow as the sum, not as wide as all of them at their worst. None of an empty sequence.

    Means and variances are added, and a log-normal distribution with these has the quantiles (Fenton and Wilkinson, 1960).
    """
    if len(ranges) <= 1:
        return ranges[0] if ranges else None
    mean = variance = 0.0
    for item in ranges:
        spread = min(_WIDEST, math.log(max(1.0, item.p90 / max(FLOOR, item.p50))) / _NINETY)
        middle = item.p50 * math.exp(spread**2 / 2)
        mean += middle
        variance += middle**2 * math.expm1(spread**2)
    spread = math.sqrt(math.log1p(variance / mean**2)) if mean > 0 else 0.0
    p50 = mean * math.exp(-(spread**2) / 2)
    p90 = min(p50 * math.exp(_NINETY * spread), max(sum(item.p90 for item in ranges), p50))
    weakest = min((item.confidence for item in ranges), key=[Confidence.LOW, Confidence.MEDIUM, Confidence.HIGH].index)
    return Range(
        expected=min(max(p50, sum(item.expected for item in ranges)), p90),
        p50=p50,
        p90=p90,
        unit=ranges[0].unit,
        based_on=min(item.based_on for item in ranges),
        basis=ranges[0].basis,
        confidence=weakest,
        is_at_least=any(item.is_at_least for item in ranges),
    )
