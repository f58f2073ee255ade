"""Paths as a person reads them: what lies below the run's folder is seen from there. Knows texts; knows no files."""

from __future__ import annotations

from typing import Final

# Absolute names of one folder, the run's: as it was named, and where that led (`cc_executor.runtime.plan.roots_of`). None: nothing is seen from anywhere.
Roots = tuple[str, ...]

# What is said of an empty path. As Python reads it, it is the current folder, in which whoever wrote "$FOLDER" may not have wanted an agent.
EMPTY: Final = "is empty, mostly of a variable that was not set: name a path, or leave it out."


def below(path: str, roots: Roots) -> str:
    """`path` seen from the first of `roots` that it lies below, else as it is. For eyes alone: what is kept, signed or read by a program has the whole path.

    Parameters
    ----------
    path : str
    roots : Roots

    Notes
    -----
    What leads elsewhere (``..``), may lead elsewhere, or would be read so (a name that begins with ``~``, white space at an end), stays whole;
    so does everything for a run in ``/``, from where a path would lose nothing but the sign that it is one.
    """
    for root in roots:
        folder = root.rstrip("/")
        inside = path.removeprefix(f"{folder}/")
        names = inside.removesuffix("/").split("/")
        if folder and inside != path and inside == inside.strip() and not inside.startswith("~") and not {"", ".", ".."} & set(names):
            return inside
    return path
