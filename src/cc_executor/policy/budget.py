"""Whether there is money for one more run: bounds of a list and of a day, what is spent and what runs may still spend. Pure.

A run's own bound is enforced by the agent after each answer, so it may overshoot by one answer; what is promised here is that nothing is started whose
bound is more than what is left.
"""

from __future__ import annotations

from typing import Final

import msgspec

# US dollars. One answer of an agent costs some cents; with less, it would end in the midst of its first step, paid and without a result.
SMALLEST: Final = 0.01


class Purse(msgspec.Struct, frozen=True):
    """What may be spent.

    Attributes
    ----------
    cap, day_cap : float or None
        US dollars for the list and for the day; None for no bound.
    spent, today : float
        What the list has cost, and what everything of today has cost that has ended.
    reserved : tuple of float or None
        What each run that goes on may spend; None: everything that is left.
    """

    cap: float | None = None
    spent: float = 0.0
    day_cap: float | None = None
    today: float = 0.0
    reserved: tuple[float | None, ...] = ()

    @property
    def is_bounded(self) -> bool:
        """Whether there is a bound at all."""
        return self.cap is not None or self.day_cap is not None

    @property
    def is_taken(self) -> bool:
        """Whether a run goes on that may spend all that is left."""
        return self.is_bounded and None in self.reserved

    @property
    def left(self) -> float:
        """US dollars that nobody has spent and nobody may spend yet; infinite without a bound."""
        held = sum(amount for amount in self.reserved if amount is not None)
        of_list = float("inf") if self.cap is None else self.cap - self.spent
        of_day = float("inf") if self.day_cap is None else self.day_cap - self.today
        return _cents(min(of_list, of_day) - held)

    @property
    def is_of_day(self) -> bool:
        """Whether it is the day's bound of which less is left."""
        return self.day_cap is not None and (self.cap is None or self.day_cap - self.today <= self.cap - self.spent)

    @property
    def narrowest(self) -> str:
        """The bound of which less is left, in words."""
        return f"the day's ${self.day_cap:.2f}" if self.is_of_day else f"${self.cap:.2f}"

    def with_one_more(self, amount: float | None) -> Purse:
        """The purse when one more run goes on."""
        return Purse(self.cap, self.spent, self.day_cap, self.today, (*self.reserved, amount))

    def is_enough(self, wanted: float | None, extra: float = 0.0) -> bool:
        """Whether a run with this bound can be started. `extra`: what is spent on it afterwards by another."""
        return self.left >= (wanted if wanted is not None else SMALLEST) + extra - 1e-9

    def bound(self, wanted: float | None, extra: float = 0.0) -> float | None:
        """The bound with which it is started."""
        if not self.is_bounded:
            return wanted
        return wanted if wanted is not None else _cents(self.left - extra)

    def words(self, name: str, wanted: float | None, extra: float = 0.0) -> str:
        """Why something is not started, and what it would need."""
        more = f" and its validation ${extra:.2f}" if extra else ""
        need = f"may cost ${wanted:.2f}{more}" if wanted is not None else f"has no bound of its own{more and f',{more}'}"
        left = max(0.0, self.left)
        total = (wanted if wanted is not None else SMALLEST) + extra
        said = f"{name} {need}, and ${left:.2f} of {self.narrowest} are left."
        if self.is_of_day:
            return f"{said} Go on tomorrow, or with a day's cap of ${self.today + total:.2f}."
        if wanted is None:
            return f"{said} Raise the cap to go on."
        return f"{said} A cap of ${self.spent + total:.2f} would let it start."


def _cents(amount: float) -> float:
    """Without the dust of adding: 0.5 - 0.125 - 0.3 is to be what it looks like."""
    return round(amount, 9)
