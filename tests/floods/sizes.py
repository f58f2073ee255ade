"""How big a flood is: small enough for every test session, or as big as it is promised. Only sizes depend on it, no test is left out."""

from __future__ import annotations

import os
from typing import Final

LONG: Final = os.environ.get("CC_EXECUTOR_TEST_LONG") == "1"
FLOOD: Final = 10**10 if LONG else 3 * 10**8  # bytes
LINES: Final = 1_000_000 if LONG else 100_000  # in a browser
BUDGET: Final = 1800 if LONG else 100  # seconds for one test; a bound against hanging, no promise
