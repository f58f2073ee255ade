"""One run at rest: the files of its folder, read by byte offset. The truth about a run is here and nowhere else.

Plain synchronous files, written in the format of `cc_executor.shim.records`. Knows no agent's dialect and judges nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from cc_executor.errors import StateUnusable
from cc_executor.model.event import ControlRecord, Paused, Resumed
from cc_executor.model.exit import ExitFacts
from cc_executor.model.receipt import Receipt, StreamDigest
from cc_executor.model.request import RunId, RunRequest
from cc_executor.shim import records
from cc_executor.store.place import claimed_at
from cc_executor.store.plain import open_plain, read_plain, unwritable, write_whole
from cc_executor.store.roll import STARTING_GRACE, is_held, may_start

BLOCK: Final = 256 * 1024  # one read: big enough to cost nothing per byte, small enough to decode between two frames
HASH_BLOCK: Final = 1024 * 1024

M = TypeVar("M", bound=BaseModel)

_control = msgspec.json.Decoder(ControlRecord)
_exit = msgspec.json.Decoder(ExitFacts)


class RunStanding(StrEnum):
    """What the files say about a run, without asking anybody."""

    STARTING = "starting"  # claimed; its supervisor is not there yet
    RUNNING = "running"  # its supervisor lives
    ENDED = "ended"
    LOST = "lost"  # its supervisor is gone and left no exit record


def request_json(request: RunRequest) -> bytes:
    """A request for its run's folder. ASCII: a prompt may hold half a pair of surrogates, which `json` escapes and pydantic refuses."""
    return json.dumps(request.model_dump(mode="json")).encode()


class RunFolder:
    """The folder of one run. Cheap to make; reads only what is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @property
    def run_id(self) -> RunId:
        """The run's id, which is the folder's name."""
        return RunId(self.path.name)

    @property
    def created_at(self) -> float:
        """Seconds since the epoch when the id was made."""
        return claimed_at(self.run_id)

    def write_new(self, name: str, data: bytes) -> None:
        """Write a file that must not exist yet, 0600.

        Raises
        ------
        StateUnusable
            It exists, or the disk is full.
        """
        path = self.path / name
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(data)
        except OSError as error:
            raise unwritable(path, error) from error

    def replace(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all, 0600, and to the disk."""
        self._put(name, data)

    def keep_first(self, name: str, data: bytes) -> None:
        """As `replace`, but what stands there already stays."""
        self._put(name, data, first_stays=True)

    def _put(self, name: str, data: bytes, *, first_stays: bool = False) -> None:
        try:
            write_whole(self.path / name, data, first_stays=first_stays)
        except OSError as error:
            raise StateUnusable(f"{self.path / name} cannot be written: {error.strerror}.") from error

    def size(self, stream: str) -> int:
        """Bytes kept of a stream so far; 0 when there is no such file."""
        try:
            return os.lstat(os.path.join(self.path, stream)).st_size  # asked for every piece: a Path costs twice the call
        except FileNotFoundError:
            return 0

    def read(self, stream: str, offset: int, size: int = BLOCK) -> bytes:
        """At most `size` bytes from `offset`; empty at the end or when nothing was written yet.

        Raises
        ------
        StateUnusable
            What stands there is not the plain file that a supervisor writes, or cannot be read.
        """
        try:
            descriptor = open_plain(os.path.join(self.path, stream))
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise StateUnusable(f"{self.path / stream} cannot be read: {error.strerror}.") from error
        try:
            return os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)

    def document(self, name: str, model: type[M]) -> M:
        """One of the small JSON files of a run, checked.

        Raises
        ------
        StateUnusable
            It is missing, damaged, not a plain file, or larger than anything that we write.
        """
        try:
            return model.model_validate(json.loads(read_plain(self.path / name)))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            reason = f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
        except OSError as error:
            reason = error.strerror or str(error)
        except (ValueError, RecursionError) as error:
            reason = f"it is not JSON ({error})"
        raise StateUnusable(f"The file {name} of run {self.run_id} cannot be read: {reason}.")

    def control_records(self, offset: int = 0) -> tuple[list[ControlRecord], int]:
        """The control records from byte `offset`, and the offset after the last whole one. A torn last line is left for later."""
        data = self.read(records.CONTROL, offset, 64 * 1024 * 1024)
        end = data.rfind(b"\n") + 1
        found: list[ControlRecord] = []
        for line in data[:end].splitlines():
            # A record kind of a newer version is no reason to lose the others.
            with contextlib.suppress(ValueError, RecursionError):
                found.append(_control.decode(line))
        return found, offset + end

    def is_paused(self) -> bool:
        """Whether the newest control records of a run that goes on say that its tree stands still."""
        stands = False
        with contextlib.suppress(StateUnusable):
            for line in self.read(records.CONTROL, max(0, self.size(records.CONTROL) - BLOCK)).splitlines():
                with contextlib.suppress(ValueError, RecursionError):  # a line that is cut, or of a newer version
                    record = _control.decode(line)
                    if isinstance(record, Paused | Resumed):
                        stands = isinstance(record, Paused)
        return stands

    def request(self) -> RunRequest:
        """What was asked for.

        Raises
        ------
        StateUnusable
            The file is missing or damaged.
        """
        return self.document(records.REQUEST, RunRequest)

    def exit_facts(self) -> ExitFacts | None:
        """What the supervisor wrote at the end, or None while it runs or when it was killed."""
        try:
            return _exit.decode(read_plain(self.path / records.EXIT))
        except (OSError, ValueError, RecursionError):
            return None

    def receipt(self) -> Receipt | None:
        """The sealed receipt, or None when nobody has followed the run to its end yet."""
        try:
            return Receipt.model_validate_json(read_plain(self.path / records.RECEIPT))
        except (OSError, ValueError, RecursionError):
            return None

    @property
    def has_receipt(self) -> bool:
        """Whether there is one, be it one that cannot be read here."""
        return (self.path / records.RECEIPT).exists()

    def is_supervised(self) -> bool:
        """Whether a shim holds the lock."""
        return is_held(self.path / records.LOCK)

    def is_at_work(self) -> bool:
        """Whether a shim holds the lock and has not said its last words; after them it syncs what was written, for two seconds where the disk is busy.

        Raises
        ------
        OSError
            Something else than a plain file stands there, or the file system has no locks.
        """
        return self.is_supervised() and not (self.path / records.EXIT).exists()

    def standing(self, now: float, *, grace: float = STARTING_GRACE) -> RunStanding:
        """What the files say.

        Until its supervisor, holding the lock, has made the file of control records, a run is `starting` for `grace` seconds, then `lost`. The file of the
        lock alone says nothing: it is there a moment before it is locked.
        """
        if (self.path / records.EXIT).exists():
            return RunStanding.ENDED
        if self.is_supervised():
            return RunStanding.RUNNING
        if (self.path / records.EXIT).exists():  # it ended between the two looks
            return RunStanding.ENDED
        if self.path.exists() and not (self.path / records.CONTROL).exists():
            is_young = may_start(self.path.parent.parent, self.run_id, now=now, grace=grace)
            return RunStanding.STARTING if is_young else RunStanding.LOST
        return RunStanding.LOST

    def digest(self, stream: str, *, dropped: int = 0) -> StreamDigest:
        """SHA-256 over a whole stream as it is on the disk. Reads it all: not for an event loop.

        Raises
        ------
        StateUnusable
            As for `read`.
        """
        hasher, offset = hashlib.sha256(), 0
        while block := self.read(stream, offset, HASH_BLOCK):
            hasher.update(block)
            offset += len(block)
        return StreamDigest(bytes=offset, dropped=dropped, sha256=hasher.hexdigest())
