"""The pre-save hook: receipts of the outputs go to the notebook's metadata, and outputs that missed the end of their run are repaired.

Knows the contents manager's hook convention. A save is never hindered: whatever goes wrong here is logged and the notebook is saved as it came.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol, cast

_logger = logging.getLogger(__name__)

# Every place of ours in a notebook holds one of these (a test compares them with the store's). Looking for them first keeps
# pydantic and the store out of servers that never see a run.
_MARK: Final = "cc_executor"
_RECEIPT: Final = "application/vnd.cc-executor.receipt+json"
# The previous file is read on every save of a notebook of ours; one above this is not worth a stalled server.
_PREVIOUS_LIMIT: Final = 256 * 1024 * 1024


class PreSaveHook(Protocol):
    """The convention of `ContentsManager.register_pre_save_hook`; managers log `__name__`."""

    __name__: str

    def __call__(self, model: dict[str, Any], path: str, contents_manager: Any, **kwargs: Any) -> None:
        """Called before a save; may change ``model["content"]`` in place."""
        ...


def presave_hook(*, environ: Mapping[str, str]) -> PreSaveHook:
    """The hook for one server.

    Parameters
    ----------
    environ : Mapping
        The server's environment, which says where the runs are kept.
    """

    def lift_receipts(model: dict[str, Any], path: str, contents_manager: Any, **kwargs: Any) -> None:
        del kwargs
        try:
            if model.get("type") == "notebook" and isinstance(content := model.get("content"), dict):
                _lift(cast("dict[str, Any]", content), path, contents_manager, environ)
        except Exception:  # the root of our part of a save: the user is owed the save, and the log the reason
            _logger.exception("receipts of %s could not be lifted; it is saved as it came", path)

    return lift_receipts


def _lift(content: dict[str, Any], path: str, contents_manager: Any, environ: Mapping[str, str]) -> None:
    previous_bytes = _previous(path, contents_manager)
    before = f'"{_MARK}"'.encode() in previous_bytes
    if not before and not _has_traces(content):
        return
    # Imported here: 0.2 s of CPU that a server pays once, at the first save of a notebook that holds a run.
    from cc_executor.server.asker import for_who_asks
    from cc_executor.store.home import StateHome, state_path
    from cc_executor.store.notebook import lift, parse_notebook, stored_bundles, stored_list_bundles, stored_receipts

    home = StateHome(state_path(environ))
    previous = parse_notebook(previous_bytes) if before else None
    lift(
        content,
        previous=previous,
        receipt_of=for_who_asks(stored_receipts(home)),
        bundle_of=for_who_asks(stored_bundles(home)),
        list_bundle_of=for_who_asks(stored_list_bundles(home)),
    )


def _previous(path: str, contents_manager: Any) -> bytes:
    """The file as it is now; empty when there is none, or when the manager keeps no files (then only what the page knows is kept)."""
    get_os_path = getattr(contents_manager, "_get_os_path", None)  # of FileManagerMixin, which every manager on files has, jupytext's too
    if get_os_path is None:
        return b""
    file = Path(get_os_path(path.strip("/")))
    try:
        return file.read_bytes() if file.stat().st_size <= _PREVIOUS_LIMIT else b""
    except OSError:
        return b""


def _has_traces(content: dict[str, Any]) -> bool:
    for cell in map(_object, _array(content.get("cells"))):
        for output in map(_object, _array(cell.get("outputs"))):
            if _MARK in _object(output.get("metadata")) or _RECEIPT in _object(output.get("data")):
                return True
    return False


def _object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _array(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []
