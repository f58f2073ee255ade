"""What was decided before a run was started, kept beside its journal so that anybody can seal the receipt later."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from cc_executor.errors import StateUnusable
from cc_executor.model.paths import Roots
from cc_executor.model.receipt import FileChange
from cc_executor.policy.predict import Prediction
from cc_executor.store.journal import RunFolder
from cc_executor.store.plain import read_plain

PLAN: Final = "plan.json"
PRUNED: Final = "pruned.json"  # in the place of a journal that somebody had removed: when, and what of it the history keeps
# Bytes: 8 s of one core, and no one's source. Somebody waits for the receipt, and a file with a hole in it can be of any size.
SIZE_LIMIT: Final = 4 * 2**30
BLOCK: Final = 2**20


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
    own_settings : tuple of str
        Files in the run's folder with settings, hooks or MCP servers of its own.
    workspace_trusted : bool
        Whether those took effect.
    notebook : str
        Path of the notebook whose kernel started the run; empty if that is not known.
    load : float or None
        Of the machine, per core, at the start.
    prediction : Prediction or None
        What was expected of the run, from the runs before it.
    mark : str
        By which the processes of the run are known, if not by its id: those of an agent that was started before there was a run.
    waited : float or None
        Seconds that such an agent had waited.
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
    own_settings: tuple[str, ...] = ()
    workspace_trusted: bool = False
    notebook: str = ""
    load: float | None = None
    prediction: Prediction | None = None
    mark: str = ""
    waited: float | None = None

    def to_json(self) -> bytes:
        """For the run's folder. ASCII: a path may hold bytes that are no UTF-8, and `json` escapes what they become in Python.

        What came later is left out where it says nothing: versions from before refuse what they do not know.
        """
        return json.dumps(self.model_dump(mode="json", exclude=None if self.mark else {"mark", "waited"})).encode()

    @classmethod
    def of(cls, folder: RunFolder) -> Plan:
        """The plan of a run.

        Raises
        ------
        StateUnusable
            It is missing or damaged.
        """
        return folder.document(PLAN, cls)


def mark_of(folder: RunFolder) -> str:
    """By what every process of a run can be told from others."""
    with suppress(StateUnusable):  # a plan that is damaged: most runs are known by their id
        return Plan.of(folder).mark or folder.run_id
    return folder.run_id


def removed(folder: RunFolder) -> str:
    """That the journal of a run was removed, and when: words to which something is added; empty where it was not."""
    if not (folder.path / PRUNED).exists():
        return ""
    day = ""
    with suppress(OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        day = f" on {datetime.fromtimestamp(json.loads(read_plain(folder.path / PRUNED))['at'], UTC):%Y-%m-%d}"
    return f"The journal was removed{day} by `history prune`"


def resolved(name: str, *, cwd: str) -> Path:
    """`name` as an absolute path, seen from the run's folder."""
    return Path(os.path.normpath(os.path.join(cwd, os.path.expanduser(name))))


def roots_of(cwd: str) -> Roots:
    """What paths below the run's folder begin with: it may have been named through a link, and agents say where that leads."""
    return tuple(dict.fromkeys((cwd, os.path.realpath(cwd))))


def digest_of_file(path: Path) -> str | None:
    """SHA-256 hex of a file's content; None when it is not there, is not a plain file that can be read, or is larger than `SIZE_LIMIT`."""
    return _look_at(path)[0]


def change_of(name: str, *, cwd: str, before: str | None) -> FileChange:
    """What became of one file. `size` without `after`: it is there, and too large to be read."""
    path = resolved(name, cwd=cwd)
    after, size = _look_at(path)
    return FileChange(path=str(path), before=before, after=after, size=size)


def _look_at(path: Path) -> tuple[str | None, int | None]:
    """Digest and size of a plain file. The names come from agents too: a pipe or a device would be read for ever, a NUL is in no file's name."""
    try:
        # Not blocking: opening a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None, None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None, None
        if status.st_size > SIZE_LIMIT:
            return None, status.st_size
        hasher, size = hashlib.sha256(), 0
        while (block := os.read(descriptor, BLOCK)) and size <= SIZE_LIMIT:  # it may grow meanwhile
            hasher.update(block)
            size += len(block)
        return hasher.hexdigest(), size
    except OSError:
        return None, None
    finally:
        os.close(descriptor)
