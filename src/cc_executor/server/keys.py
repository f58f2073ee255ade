"""Idempotency keys: two requests of one owner with the same key are one. Knows small files; knows no run and no HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

from cc_executor.errors import InvalidRequest, StateUnusable
from cc_executor.server.refusal import Refused
from cc_executor.store.plain import read_plain

KEY_LIMIT: Final = 255  # characters
KEY_BYTES: Final = 4096


@dataclass(slots=True)
class Held:
    """A key, while nobody else's request with it is at work. `id`: what it stands for; empty for a new one, and for a request without a key."""

    id: str
    place: Path | None = None
    digest: str = ""

    def keep(self, execution: str) -> None:
        """Write down what the key stands for, before there is anything: a server that dies in between has promised it. Blocking. Raises `StateUnusable`."""
        if self.place is not None and self.id != execution:
            _write(self.place, {"id": execution, "digest": self.digest})
        self.id = execution


class Keys:
    """The keys of one server. `root`: the state folder."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "server" / "keys"
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # each for as long as somebody holds it or waits for it

    @asynccontextmanager
    async def held(self, key: str, *, who: str, digest: str) -> AsyncGenerator[Held]:
        """What a key stands for; until the block ends, other requests with it wait.

        Parameters
        ----------
        key : str
            Empty: the request has none.
        who : str
            The owner.
        digest : str
            Of the request.

        Raises
        ------
        Refused, InvalidRequest, StateUnusable
            The key was used for another request; it is too long; what is kept of it cannot be read.
        """
        if not key:
            yield Held("")
            return
        if len(key) > KEY_LIMIT:
            raise InvalidRequest(f"The idempotency key is longer than {KEY_LIMIT} characters.")
        place = self._folder / hashlib.sha256(f"{who}\0{key}".encode("utf-8", "surrogatepass")).hexdigest()
        lock = self._locks.setdefault(place.name, asyncio.Lock())
        async with lock:
            known = await asyncio.to_thread(_read, place)
            if known is not None and known["digest"] != digest:
                raise Refused(409, "KeyReused", "This idempotency key was used for another request. Make a new one.")
            yield Held("" if known is None else known["id"], place, digest)


def _read(path: Path) -> dict[str, str] | None:
    try:
        known: Any = json.loads(read_plain(path, KEY_BYTES))
        return {"id": str(known["id"]), "digest": str(known["digest"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateUnusable("What is kept of this idempotency key cannot be read. Use another one.") from error


def _write(path: Path, known: Mapping[str, str]) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(known), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise StateUnusable(
            f"{path.parent} cannot be written: {error.strerror}. Nothing was started; make room, or mend the folder."
        ) from error
