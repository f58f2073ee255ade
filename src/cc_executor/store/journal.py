"""One run at rest: the files of its folder, read by byte offset. The truth about a run is here and nowhere else.

Plain synchronous files, written in the format of `cc_executor.shim.records`. Knows no agent's dialect and judges nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from cc_executor.errors import StateUnusable
from cc_executor.model.event import ControlRecord
from cc_executor.model.exit import ExitFacts
from cc_executor.model.receipt import Receipt, StreamDigest
from cc_executor.model.request import RunId, RunRequest
from cc_executor.shim import records

BLOCK: Final = 256 * 1024  # one read: big enough to cost nothing per byte, small enough to decode between two frames
HASH_BLOCK: Final = 1024 * 1024
STARTING_GRACE: Final = 25.0  # seconds; a supervisor that has not answered after 20 is ended by its launcher, and the folder removed

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
        return int(self.run_id[:12], 16) / 1000

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
            raise StateUnusable(
                f"{path} cannot be written: {error.strerror}. Nothing was started; make room, or mend the folder."
            ) from error

    def replace(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all, 0600, and to the disk."""
        temporary = ""
        try:
            descriptor, temporary = tempfile.mkstemp(dir=self.path, prefix=f".{name}.")
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path / name)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise StateUnusable(f"{self.path / name} cannot be written: {error.strerror}.") from error

    def size(self, stream: str) -> int:
        """Bytes kept of a stream so far; 0 when there is no such file."""
        try:
            return (self.path / stream).stat().st_size
        except FileNotFoundError:
            return 0

    def read(self, stream: str, offset: int, size: int = BLOCK) -> bytes:
        """At most `size` bytes from `offset`; empty at the end or when nothing was written yet."""
        try:
            descriptor = os.open(self.path / stream, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        try:
            return os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)

    def control_records(self, offset: int = 0) -> tuple[list[ControlRecord], int]:
        """The control records from byte `offset`, and the offset after the last whole one. A torn last line is left for later."""
        data = self.read(records.CONTROL, offset, 64 * 1024 * 1024)
        end = data.rfind(b"\n") + 1
        found: list[ControlRecord] = []
        for line in data[:end].splitlines():
            # A record kind of a newer version is no reason to lose the others.
            with contextlib.suppress(ValueError):
                found.append(_control.decode(line))
        return found, offset + end

    def request(self) -> RunRequest:
        """What was asked for.

        Raises
        ------
        StateUnusable
            The file is missing or damaged.
        """
        try:
            return RunRequest.model_validate(json.loads((self.path / records.REQUEST).read_bytes()))
        except (OSError, ValueError, RecursionError) as error:
            raise StateUnusable(f"The request of run {self.run_id} cannot be read: {error}") from error

    def exit_facts(self) -> ExitFacts | None:
        """What the supervisor wrote at the end, or None while it runs or when it was killed."""
        try:
            return _exit.decode((self.path / records.EXIT).read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def receipt(self) -> Receipt | None:
        """The sealed receipt, or None when nobody has followed the run to its end yet."""
        try:
            return Receipt.model_validate_json((self.path / records.RECEIPT).read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def is_supervised(self) -> bool:
        """Whether a shim holds the lock."""
        try:
            descriptor = os.open(self.path / records.LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)  # also where nothing can be written
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)

    def standing(self, now: float, *, grace: float = STARTING_GRACE) -> RunStanding:
        """What the files say. Between claim and lock a run is `starting` for `grace` seconds, then `lost`; so it is when its folder was removed."""
        if (self.path / records.EXIT).exists():
            return RunStanding.ENDED
        if self.is_supervised():
            return RunStanding.RUNNING
        if (self.path / records.EXIT).exists():  # it ended between the two looks
            return RunStanding.ENDED
        if self.path.exists() and not (self.path / records.LOCK).exists() and now - self.created_at < grace:
            return RunStanding.STARTING
        return RunStanding.LOST

    def digest(self, stream: str, *, dropped: int = 0) -> StreamDigest:
        """SHA-256 over a whole stream as it is on the disk. Reads it all: not for an event loop."""
        hasher, offset = hashlib.sha256(), 0
        try:
            with open(self.path / stream, "rb", buffering=0) as file:
                while block := file.read(HASH_BLOCK):
                    hasher.update(block)
                    offset += len(block)
        except FileNotFoundError:
            pass
        return StreamDigest(bytes=offset, dropped=dropped, sha256=hasher.hexdigest())
