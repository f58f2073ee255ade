"""Whatever lies in the folders of runs: at roll call each run is going, missing or neither, and only one that has ended is struck off."""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cc_executor.shim import records
from cc_executor.store import roll
from cc_executor.store.place import RUNS

NOW = 1_800_000_000.0
HOSTS = {"own": roll.own_host(), "torn": b"", "other": b"somebody-else"}


@dataclass(frozen=True)
class Seen:
    """A run, as its files say. `made`, `entered`: seconds before now; `lock`: none, free, held or odd (no plain file)."""

    made: float
    entered: float
    host: str
    lock: str
    has_control: bool
    has_exit: bool
    has_receipt: bool
    has_folder: bool

    @property
    def has_ended(self) -> bool:
        return self.has_folder and (self.has_exit or self.has_receipt)

    @property
    def is_own(self) -> bool:
        return self.host != "other"

    @property
    def is_going(self) -> bool:
        return self.is_own and self.has_folder and self.lock == "held"

    @property
    def is_missing(self) -> bool:
        if not self.is_own or self.has_ended or self.is_going or (self.has_folder and self.lock == "odd"):
            return False
        waits = -roll.CLOCK_SKEW < min(self.made, self.entered) < roll.STARTING_GRACE
        return (self.has_folder and self.has_control) or not waits


AGES = st.sampled_from([-2 * roll.CLOCK_SKEW, -roll.CLOCK_SKEW, -1.0, 0.0, roll.STARTING_GRACE - 1, roll.STARTING_GRACE, 1e6])
RUN = st.builds(
    Seen, AGES, AGES, st.sampled_from(sorted(HOSTS)), st.sampled_from(["none", "free", "held", "odd"]), *(st.booleans() for _ in range(4))
)


def lay(root: Path, run: Seen, number: int, stack: ExitStack) -> str:
    run_id = f"{round((NOW - run.made) * 1000):012x}{number:014x}"
    roll.enter(root, run_id)
    entry = root / roll.FOLDER / run_id
    entry.write_bytes(HOSTS[run.host])
    os.utime(entry, (NOW - run.entered, NOW - run.entered))
    if run.has_folder:
        folder = root / RUNS / run_id
        folder.mkdir(parents=True)
        for name, is_there in ((records.CONTROL, run.has_control), (records.EXIT, run.has_exit), (records.RECEIPT, run.has_receipt)):
            if is_there:
                (folder / name).touch()
        if run.lock == "odd":
            (folder / records.LOCK).mkdir()
        elif run.lock != "none":
            file = stack.enter_context((folder / records.LOCK).open("w"))
            if run.lock == "held":
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return run_id


@given(st.lists(RUN, max_size=6))
def test_a_roll_call_tells_who_goes_on_and_who_is_missing(runs: list[Seen]) -> None:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        root = Path(folder)
        assert (roll.going(root), roll.missing(root, now=NOW)) == ([], []), "nothing was ever run here"
        laid = {lay(root, run, number, stack): run for number, run in enumerate(runs)}
        (root / roll.FOLDER).mkdir(exist_ok=True)
        (root / roll.FOLDER / "no run's name").touch()
        assert roll.going(root) == sorted(run_id for run_id, run in laid.items() if run.is_going)
        missing = sorted(run_id for run_id, run in laid.items() if run.is_missing)
        assert roll.missing(root, now=NOW) == missing
        left = {path.name for path in (root / roll.FOLDER).iterdir()}
        assert left == {run_id for run_id, run in laid.items() if not run.has_ended} | {"no run's name"}
        assert roll.missing(root, now=NOW) == missing, "asking changes no answer"
