"""Contents of files by their SHA-256, each kept once. Plain synchronous files, 0600 in folders of 0700; knows no trees and no runs.

A content is checked against its name when it is taken out: what a crash or a full disk has torn is never handed on.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from cc_executor.store.plain import open_plain, read_plain

BLOCK: Final = 2**20
WHOLE: Final = 256 * 1024  # bytes; a smaller file is read at once
LOOSE: Final = 48  # contents that come together and are still kept in a file each: the work of most runs
BATCH: Final = 32  # contents that are written into a pack at once: 8 MB at most
PACK: Final = ".pack"
INDEX: Final = ".index"
INDEX_LIMIT: Final = 64 * 2**20  # bytes; a hundred thousand contents are 5 MB


class Damaged(OSError):
    """A content is missing, or is not what its name says."""


class _Pack(msgspec.Struct, frozen=True):
    """Where each content lies in a pack: offset and size."""

    places: dict[bytes, tuple[int, int]]


class Blobs:
    """The contents below one folder: each in a file of its own, or many small ones, which came together, in a pack.

    To make three thousand files takes a busy disk seconds; to write what they hold into one takes some milliseconds.

    Parameters
    ----------
    path : Path
        Made on first use.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folders: set[str] = set()
        self._pending: dict[bytes, bytes] = {}
        self._places: dict[bytes, tuple[int, int]] = {}  # in the pack that is being written
        self._pack: str = ""
        self._packed: dict[bytes, tuple[str, int, int]] | None = None  # read when it is first asked for

    def _place(self, name: str) -> str:
        return f"{self.path}/{name[:2]}/{name[2:]}"

    def has(self, content: bytes) -> bool:
        """Whether this content is kept."""
        return content in self._places or content in self._pending or content in self._packs() or os.path.exists(self._place(content.hex()))

    def _is_whole(self, content: bytes, size: int) -> bool:
        """Whether this content is kept, as far as its size tells; what a power cut has left torn is removed, for it is to be kept anew."""
        if content in self._places or content in self._pending or content in self._packs():
            return True
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self._place(content.hex())).st_size == size:
                return True
            _remove(self._place(content.hex()))
        return False

    def _packs(self) -> dict[bytes, tuple[str, int, int]]:
        if self._packed is None:
            self._packed = {}
            with contextlib.suppress(FileNotFoundError):
                for name in os.listdir(self.path):
                    if name.endswith(INDEX):
                        stem = name.removesuffix(INDEX)
                        with contextlib.suppress(FileNotFoundError):
                            written = os.stat(f"{self.path}/{stem}{PACK}").st_size  # a power cut may have left less than the index names
                            for content, (offset, size) in _index(self.path / name).places.items():
                                if offset + size <= written:
                                    self._packed[content] = (stem, offset, size)
        return self._packed

    def put(self, data: bytes) -> bytes:
        """Keep `data`; returns its SHA-256. It is there for others after `flush`.

        Raises
        ------
        OSError
            There is no room.
        """
        content = hashlib.sha256(data).digest()
        if not self._is_whole(content, len(data)):
            self._pending[content] = data
            if len(self._pending) >= (LOOSE if not self._pack else BATCH):
                self._to_pack()
        return content

    def flush(self) -> None:
        """See that everything that was put is there for whoever looks for it. Raises `OSError`."""
        if not self._pack:
            for content, data in self._pending.items():
                self._write_loose(content, data)
            self._pending.clear()
            return
        self._to_pack()
        index = msgspec.msgpack.encode(_Pack(self._places))
        temporary = f"{self.path}/.{secrets.token_hex(8)}"
        self._write_new(temporary, (index,))
        os.rename(temporary, f"{self.path}/{self._pack}{INDEX}")
        if self._packed is not None:
            self._packed |= {content: (self._pack, offset, size) for content, (offset, size) in self._places.items()}
        self._places, self._pack = {}, ""

    def _to_pack(self) -> None:
        """Append what is pending to the pack."""
        if not self._pack:
            self._make(str(self.path))
            self._pack = secrets.token_hex(12)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(f"{self.path}/{self._pack}{PACK}", flags, 0o600), "wb", buffering=0) as file:
            offset = os.fstat(file.fileno()).st_size
            _write_all(file.fileno(), b"".join(self._pending.values()))
        for content, data in self._pending.items():
            self._places[content] = (offset, len(data))
            offset += len(data)
        self._pending.clear()

    def _write_loose(self, content: bytes, data: bytes) -> None:
        temporary = self._temporary(content.hex())
        self._write_new(temporary, (data,))
        os.rename(temporary, self._place(content.hex()))

    @staticmethod
    def _write_new(path: str, parts: Iterable[bytes]) -> None:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb", buffering=0) as file:
                for data in parts:
                    _write_all(file.fileno(), data)
        except OSError:
            _remove(path)
            raise

    def put_file(self, descriptor: int, *, most: int | None = None) -> tuple[bytes, int]:
        """Keep what is left to be read of an open file; returns its SHA-256 and its size.

        Parameters
        ----------
        descriptor : int
        most : int, optional
            Bytes; a file that turns out to be larger is not kept, and its SHA-256 is empty.

        Raises
        ------
        OSError
            There is no room, or the file cannot be read.
        """
        temporary = self._temporary("00")
        hasher, size = hashlib.sha256(), 0
        try:
            target = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(target, "wb", buffering=0) as file:
                while block := os.read(descriptor, BLOCK):
                    hasher.update(block)
                    size += len(block)
                    if most is not None and size > most:
                        _remove(temporary)
                        return b"", size
                    _write_all(file.fileno(), block)
            content = hasher.digest()
            if self._is_whole(content, size):
                _remove(temporary)
            else:
                self._folder(content.hex())
                os.rename(temporary, self._place(content.hex()))
        except OSError:
            _remove(temporary)
            raise
        return content, size

    def _temporary(self, name: str) -> str:
        return f"{self._folder(name)}/.{secrets.token_hex(8)}"

    def _folder(self, name: str) -> str:
        folder = f"{self.path}/{name[:2]}"
        if folder not in self._folders:
            self._make(str(self.path))  # `makedirs` gives its mode to the last folder alone
            self._make(folder)
            self._folders.add(folder)
        return folder

    @staticmethod
    def _make(folder: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, mode=0o700)

    def blocks(self, content: bytes) -> Iterator[bytes]:
        """What is kept under this SHA-256, in pieces. Nothing that was given may be used before the last piece came: only then it is known to be whole.

        Raises
        ------
        Damaged
            It is not here, or not what it was.
        """
        hasher = hashlib.sha256()
        offset, rest = 0, sys.maxsize
        path = self._place(content.hex())
        if not os.path.exists(path) and content in self._packs():
            stem, offset, rest = self._packs()[content]
            path = f"{self.path}/{stem}{PACK}"
        try:
            with open(open_plain(Path(path)), "rb", buffering=0) as file:
                file.seek(offset)
                while rest and (block := file.read(min(BLOCK, rest))):
                    rest -= len(block)
                    hasher.update(block)
                    yield block
        except FileNotFoundError:
            raise Damaged("its content is not kept any more") from None
        if hasher.digest() != content:
            raise Damaged("its kept content is damaged")

    def sync(self, every: Iterable[bytes]) -> None:
        """See that these contents are on the disk."""
        packs: dict[str, None] = {}
        for content in filter(None, every):
            if content in self._packs():
                stem = self._packs()[content][0]
                packs |= {f"{self.path}/{stem}{PACK}": None, f"{self.path}/{stem}{INDEX}": None}
            else:
                _sync(self._place(content.hex()))
        for path in packs:
            _sync(path)

    def size(self) -> int:
        """Bytes of everything that is kept."""
        found = 0
        for folder, _, names in os.walk(self.path):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    found += os.lstat(f"{folder}/{name}").st_size
        return found

    def keep_only(self, wanted: set[bytes]) -> tuple[int, int]:
        """Remove every other content, and what was left half written; returns how many files and bytes are gone. Only where nobody else writes.

        Raises
        ------
        OSError
            Something cannot be read now, or there is no room. What is wanted is there.
        """
        gone: list[int] = []

        def remove(path: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                size = os.lstat(path).st_size
                os.unlink(path)
                gone.append(size)

        try:
            names = sorted(os.listdir(self.path))
        except FileNotFoundError:
            return 0, 0
        self._packed = None
        for name in names:
            place = f"{self.path}/{name}"
            if name.endswith(PACK):
                self._thin(name.removesuffix(PACK), wanted, remove)
            elif name.startswith("."):
                remove(place)
            elif not name.endswith(INDEX):
                for inner in os.listdir(place):
                    if _digest(name + inner) not in wanted:
                        remove(f"{place}/{inner}")
        self._packed = None
        return len(gone), sum(gone)

    def _thin(self, stem: str, wanted: set[bytes], remove: Callable[[str], None]) -> None:
        """Remove a pack of which nothing is wanted; write one anew of which less than half is."""
        pack, index = f"{self.path}/{stem}{PACK}", f"{self.path}/{stem}{INDEX}"
        places = _read_index(Path(index)).places
        kept = {content: place for content, place in places.items() if content in wanted}
        if kept and sum(size for _, size in kept.values()) * 2 < sum(size for _, size in places.values()):
            for content in kept:
                with contextlib.suppress(Damaged):
                    self._write_loose(content, b"".join(self.blocks(content)))
            kept = {}
        if not kept:
            remove(index)
            remove(pack)


# Made while the module is imported: two threads that are the first to need one at the same time crash msgspec 0.22 (41 of 60 processes).
_pack: Final = msgspec.msgpack.Decoder(_Pack)


def _index(path: Path) -> _Pack:
    """What a pack holds; nothing, where its index is missing, half written, or something else, or cannot be read."""
    with contextlib.suppress(OSError):
        return _read_index(path)
    return _Pack({})


def _read_index(path: Path) -> _Pack:
    """What a pack holds; nothing, where its index is missing, half written, or something else. Raises `OSError` where it cannot be read."""
    with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
        return _pack.decode(read_plain(path, INDEX_LIMIT))
    return _Pack({})


def _sync(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        descriptor = open_plain(Path(path))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _digest(name: str) -> bytes:
    try:
        return bytes.fromhex(name)
    except ValueError:  # half written
        return b""


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
