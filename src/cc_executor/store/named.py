"""What stands at a name that somebody has given, which may be one that no file can have. Looks; opens and changes nothing."""

from __future__ import annotations

import os
from pathlib import Path


def is_there(name: Path | str) -> bool:
    """Whether something stands there. Where the name is too long there is nothing, for which `Path.exists` raises before Python 3.14."""
    return os.path.exists(name)


def is_folder(name: Path | str) -> bool:
    """Whether a folder stands there, likewise."""
    return os.path.isdir(name)
