"""How well predictions were kept, and how the estimator would have done. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cc_executor.policy.predict import Forecast, PastRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How well predictions were kept.

    Attributes
    ----------
    runs : int
        Runs that were predicted and can be judged: those that ended by themselves, and those cut off beyond their `p90`.
    within_p50, within_p90 : float
        Shares of them; 0.5 and 0.9 are what is wanted. 0 when there are none.
    undecided : int
        Runs that were cut off or failed before their `p90`: nobody knows.
    """

    runs: int
    within_p50: float
    within_p90: float
    undecided: int

    def words(self) -> str:
        """One sentence."""
        if not self.runs:
            return "No predicted run has ended yet."
        undecided = (
            f"; {self.undecided} more {'was' if self.undecided == 1 else 'were'} cut off or failed before that" if self.undecided else ""
        )
        return (
            f"Of {self.runs} predicted {'run' if self.runs == 1 else 'runs'} {self.within_p50:.0%} ended within p50 (50% is meant) "
            f"and {self.within_p90:.0%} within p90 (90% is meant){undecided}."
        )


def calibration(judged: Iterable[tuple[float, float, float, bool]]) -> Calibration:
    """From (p50, p90, seconds, has_ended) of each run that was predicted."""
    runs = half = most = undecided = 0
    for p50, p90, seconds, has_ended in judged:
        if not has_ended and seconds <= p90:
            undecided += 1
            continue
        runs += 1
        half += has_ended and seconds <= p50
        most += has_ended and seconds <= p90
    return Calibration(runs=runs, within_p50=half / runs if runs else 0.0, within_p90=most / runs if runs else 0.0, undecided=undecided)


def replay(past: Iterable[PastRun]) -> Calibration:
    """How the estimator would have done: every run predicted from the ones before it."""
    forecast = Forecast()
    judged: list[tuple[float, float, float, bool]] = []
    for run in past:
        if (expected := forecast.predict(run.features).seconds) is not None:
            judged.append((expected.p50, expected.p90, run.seconds, run.has_ended))
        forecast.learn(run)
    return calibration(judged)
