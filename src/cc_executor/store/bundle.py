"""What is shown of a run or a list when it is over, kept in its folder as its cell showed it. Knows files and what may be in them; knows no notebook."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from cc_executor.errors import StateUnusable
from cc_executor.model.inert import inert
from cc_executor.model.receipt import RECEIPT_MIME
from cc_executor.store.journal import RunFolder
from cc_executor.store.plain import read_plain, write_whole

BUNDLE: Final = "bundle.json"  # what replaces the live view, {"data": …, "metadata": …}
MARK: Final = "cc_executor"  # the key in an output's and in the notebook's metadata
_LIMIT: Final = 16 * 1024 * 1024  # bytes

Json: TypeAlias = dict[str, Any]


def as_object(value: Any) -> Json:
    """A value of JSON, if it is an object; else an empty one."""
    return cast("Json", value) if isinstance(value, dict) else {}


def write_list_bundle(folder: Path, bundle: tuple[Json, Json]) -> None:
    """Keep the static output of a task list in its folder, whole or not at all.

    Raises
    ------
    StateUnusable
        The disk is full, or the folder cannot be written.
    """
    data, metadata = bundle
    try:
        write_whole(folder / BUNDLE, json.dumps({"data": data, "metadata": metadata}).encode(), sync=False)
    except OSError as error:
        raise StateUnusable(f"{folder} cannot be written: {error.strerror}.") from error


def write_bundle(folder: RunFolder, bundle: tuple[Json, Json]) -> None:
    """Keep the static output of a run in its folder, whole or not at all. Raises `StateUnusable`."""
    data, metadata = bundle
    folder.replace(BUNDLE, json.dumps({"data": data, "metadata": metadata}).encode())


def read_bundle(folder: RunFolder) -> tuple[Json, Json] | None:
    """The static output that was stored with a run, or None."""
    return _read(folder.path / BUNDLE)


def read_list_bundle(folder: Path) -> tuple[Json, Json] | None:
    """The same of a task list."""
    return _read(folder / BUNDLE)


def _read(path: Path) -> tuple[Json, Json] | None:
    """What is kept in such a file.

    The agent could have written it. So only the kinds of content that we store are taken from it, its HTML is made inert, and of its metadata only the
    mark is left.
    """
    try:
        bundle = as_object(json.loads(read_plain(path, _LIMIT)))
    except (OSError, ValueError, RecursionError):
        return None
    stored, metadata = bundle.get("data"), bundle.get("metadata")
    if not isinstance(stored, dict) or not isinstance(metadata, dict):
        return None
    data: Json = {}
    for mime, value in cast("Json", stored).items():
        if mime == "text/html" and isinstance(value, str):
            data[mime] = inert(value)
        elif (mime == "text/plain" and isinstance(value, str)) or (mime == RECEIPT_MIME and isinstance(value, dict)):
            data[mime] = value
    if "text/plain" not in data:
        return None
    return data, {MARK: as_object(cast("Json", metadata).get(MARK))}
