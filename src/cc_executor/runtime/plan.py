"""What was decided before a run was started, kept beside its journal so that anybody can seal the receipt later."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from cc_executor.errors import StateUnusable
from cc_executor.model.receipt import FileChange
from cc_executor.store.journal import RunFolder

PLAN: Final = "plan.json"


class Plan(BaseModel):
    """The process as it was started, less everything secret.

    Attributes
    ----------
    argv : tuple of str
        The command line (the prompt travels on stdin and is not in it).
    session_id : str
        The id given to the agent for its session.
    env_names : tuple of str
        Names of the environment variables that it got.
    before : dict
        SHA-256 hex of each expected file before the start; None: it was not there.
    config_dir : str or None
        Where the agent keeps its transcripts, if not in the usual place.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    argv: tuple[str, ...]
    agent_path: str
    agent_version: str = ""
    session_id: str = ""
    env_names: tuple[str, ...] = ()
    before: dict[str, str | None] = {}
    rehearsed: str | None = None
    config_dir: str | None = None

    @classmethod
    def of(cls, folder: RunFolder) -> Plan:
        """The plan of a run.

        Raises
        ------
        StateUnusable
            It is missing or damaged.
        """
        try:
            return cls.model_validate_json((folder.path / PLAN).read_bytes())
        except (OSError, ValueError) as error:
            raise StateUnusable(f"The plan of run {folder.run_id} cannot be read: {error}") from error


def digest_of_file(path: Path) -> str | None:
    """SHA-256 hex of a file's content; None when it is not there or is not a plain file that can be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def resolved(name: str, *, cwd: str) -> Path:
    """`name` as an absolute path, seen from the run's folder."""
    return Path(os.path.normpath(os.path.join(cwd, os.path.expanduser(name))))


def change_of(name: str, *, cwd: str, before: str | None) -> FileChange:
    """What became of one file."""
    path = resolved(name, cwd=cwd)
    after = digest_of_file(path)
    return FileChange(path=str(path), before=before, after=after, size=path.stat().st_size if after is not None else None)
