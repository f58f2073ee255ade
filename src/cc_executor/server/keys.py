"""Idempotency keys: two requests of one owner with the same key are one, at whichever server of a state folder. Knows small files; knows no run and no HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

import msgspec

from cc_executor.errors import InvalidRequest, StateUnusable
from cc_executor.server.policy import SOON
from cc_executor.server.refusal import Refused
from cc_executor.store.lock import taken
from cc_executor.store.plain import read_plain, unwritable, write_whole

KEY_LIMIT: Final = 255  # characters
KEY_BYTES: Final = 4096
PATIENCE: Final = 60.0  # seconds; a launch gives up after 20, and two of them may come before this one
_LOOK: Final = 0.02  # seconds
_LOCK: Final = ".lock"
_NAME: Final = re.compile(r"[0-9a-f]{64}")


class Held(msgspec.Struct):
    """A key, while nobody else's request with it is at work. `id`: what it stands for; empty for a new one, and for a request without a key."""

    id: str
    place: Path | None = None
    digest: str = ""

    def keep(self, execution: str) -> None:
        """Write down what the key stands for, before there is anything: a server that dies in between has promised it. Blocking. Raises `StateUnusable`."""
        if self.place is not None and self.id != execution:
            try:
                write_whole(self.place, json.dumps({"id": execution, "digest": self.digest}).encode("ascii"))
            except OSError as error:
                raise unwritable(self.place.parent, error) from error
        self.id = execution


class Keys:
    """The keys of one state folder, which several servers may have. `root`: the folder."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "server" / "keys"
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # each for as long as somebody holds it or waits for it

    @asynccontextmanager
    async def held(self, key: str, *, who: str, digest: str) -> AsyncGenerator[Held]:
        """What a key stands for; until the block ends, other requests with it wait, those to other servers of the state folder, too.

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
            The key was used for another request, or another server has been at the first one for `PATIENCE` seconds; it is too long; what is kept of it
            cannot be read.
        """
        if not key:
            yield Held("")
            return
        if len(key) > KEY_LIMIT:
            raise InvalidRequest(f"The idempotency key is longer than {KEY_LIMIT} characters.")
        place = self._folder / hashlib.sha256(f"{who}\0{key}".encode("utf-8", "surrogatepass")).hexdigest()
        lock = self._locks.setdefault(place.name, asyncio.Lock())
        async with lock, _turn(place):
            known = await asyncio.to_thread(_read, place)
            if known is not None and known["digest"] != digest:
                raise Refused(409, "KeyReused", "This idempotency key was used for another request. Make a new one.")
            yield Held("" if known is None else known["id"], place, digest)

    def sweep(self, is_gone: Callable[[str], bool], *, before: float) -> None:
        """Forget the keys of runs and lists that are gone. Blocking.

        Parameters
        ----------
        is_gone : callable
            Takes an id.
        before : float
            Seconds since the epoch; a key that was used first later than that stays.
        """
        try:
            names = {name for path in self._folder.iterdir() if _NAME.fullmatch(name := path.name.partition(".")[0])}
        except OSError:  # no key was ever used
            return
        for place in (self._folder / name for name in names):
            with suppress(OSError, StateUnusable):  # gone at this moment; what cannot be read stays
                if place.exists() and (place.stat().st_mtime >= before or not is_gone(_id_of(place))):
                    continue
                with taken(place.with_suffix(_LOCK)) as is_ours:
                    # Asked again: somebody may have sent that request once more, and the run be there.
                    if is_ours and place.exists() and is_gone(_id_of(place)):
                        place.unlink()


@asynccontextmanager
async def _turn(place: Path) -> AsyncGenerator[None]:
    """Be the only one, of all servers, with a key; the kernel ends the turn of a server that dies."""
    until = time.monotonic() + PATIENCE
    while True:
        with ExitStack() as stack:
            try:
                is_ours = stack.enter_context(taken(place.with_suffix(_LOCK)))
            except OSError as error:
                raise unwritable(place.parent, error) from error
            if is_ours:
                yield
                return
        if time.monotonic() > until:
            said = (
                "Another server is still starting what was sent with this idempotency key. Send the same request again, with the same key."
            )
            raise Refused(409, "KeyInUse", said, retry_after=SOON)
        await asyncio.sleep(_LOOK)  # a lock of another process can be waited for in a thread alone, which nobody could call back


def _id_of(place: Path) -> str:
    known = _read(place)
    return known["id"] if known is not None else ""


def _read(path: Path) -> dict[str, str] | None:
    try:
        known: Any = json.loads(read_plain(path, KEY_BYTES))
        return {"id": str(known["id"]), "digest": str(known["digest"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateUnusable("What is kept of this idempotency key cannot be read. Use another one.") from error
