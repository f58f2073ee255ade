"""The hook under a real `jupyter server` process on loopback, spoken to as a page does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import nbformat
import pytest

from cc_executor.model.receipt import RECEIPT_MIME
from cc_executor.server import presave
from cc_executor.store import notebook as store
from support import receipts
from support.environments import CHECKOUT
from support.receipts import code_cell, final_output, live_output, receipt, run_id
from support.served import Server, serving

# What jupytext does: another contents manager, put in place in the load function of an extension whose name comes later.
REPLACER: Final = """
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

class ReplacedManager(AsyncLargeFileManager):
    pass

def _jupyter_server_extension_points():
    return [{"module": "zz_replaces_the_manager"}]

def _load_jupyter_server_extension(app):
    app.contents_manager = ReplacedManager(parent=app, log=app.log, root_dir=app.root_dir)
    app.web_app.settings["contents_manager"] = app.contents_manager
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as found:
        yield found


def test_the_config_of_the_package_enables_the_extension(server: Server) -> None:
    assert "cc_executor | extension was successfully loaded." in server.log
    assert "Traceback" not in server.log


def test_saving_lifts_the_receipt_and_the_file_is_valid(server: Server) -> None:
    sealed = receipt(1)
    saved = server.save("lifted.ipynb", receipts.notebook(code_cell("a", final_output(sealed))))
    assert saved["metadata"]["cc_executor"]["receipts"][run_id(1)]["digest"] == sealed.digest
    nbformat.validate(nbformat.read(server.root / "lifted.ipynb", as_version=4))


def test_saving_again_changes_no_byte(server: Server) -> None:
    notebook = receipts.notebook(code_cell("a", final_output(receipt(1))))
    server.save("stable.ipynb", notebook)
    first = (server.root / "stable.ipynb").read_bytes()
    server.save("stable.ipynb", notebook)  # the page does not know what the hook added
    assert (server.root / "stable.ipynb").read_bytes() == first
    server.save("stable.ipynb", server.open("stable.ipynb"))  # and here it does
    assert (server.root / "stable.ipynb").read_bytes() == first


def test_clear_outputs_keeps_the_receipt(server: Server) -> None:
    server.save("cleared.ipynb", receipts.notebook(code_cell("a", final_output(receipt(1)))))
    cleared = server.save("cleared.ipynb", receipts.notebook(code_cell("a")))
    assert cleared["cells"][0]["outputs"] == []
    assert run_id(1) in cleared["metadata"]["cc_executor"]["receipts"]


def test_an_output_whose_end_the_page_missed_is_repaired_in_the_file(server: Server) -> None:
    sealed = receipt(7)
    receipts.keep(server.home, sealed)
    saved = server.save("repaired.ipynb", receipts.notebook(code_cell("a", live_output(7))))
    output = saved["cells"][0]["outputs"][0]
    assert store.WIDGET_MIME not in output["data"]
    assert output["data"][RECEIPT_MIME]["digest"] == sealed.digest
    assert "".join(output["data"]["text/plain"]) == sealed.text
    reopened = server.client.get("/api/contents/repaired.ipynb").json()
    assert reopened["content"]["cells"][0]["outputs"][0]["data"]["text/plain"] == sealed.text


def test_a_notebook_without_a_run_is_saved_as_it_came(server: Server) -> None:
    notebook = receipts.notebook(code_cell("a", source="1 + 1"))
    saved = server.save("plain.ipynb", notebook)
    assert saved["metadata"] == notebook["metadata"]


def test_a_file_that_is_not_a_notebook_is_not_read(server: Server) -> None:
    answer = server.client.put("/api/contents/notes.txt", json={"type": "file", "format": "text", "content": '"cc_executor"'})
    assert answer.status_code == 201
    assert (server.root / "notes.txt").read_text("utf-8") == '"cc_executor"'


def test_a_large_file_in_chunks_is_let_through(server: Server) -> None:
    for chunk, text in ((1, "first "), (-1, "last")):
        answer = server.client.put("/api/contents/big.bin", json={"type": "file", "format": "text", "content": text, "chunk": chunk})
        assert answer.status_code in {200, 201}, answer.text
    assert (server.root / "big.bin").read_text("utf-8") == "first last"


@pytest.mark.parametrize(
    "previous", [b"", b'"cc_executor" {', b'{"metadata": {"cc_executor": []}}', b'{"cc_executor": 1, "nbformat": 4, "cells": 1}']
)
def test_a_previous_file_of_any_kind_does_not_hinder_the_save(server: Server, previous: bytes) -> None:
    (server.root / "odd.ipynb").write_bytes(previous)
    saved = server.save("odd.ipynb", receipts.notebook(code_cell("a", final_output(receipt(1)))))
    assert run_id(1) in saved["metadata"]["cc_executor"]["receipts"]


def test_a_receipt_that_cannot_be_read_does_not_hinder_the_save(server: Server) -> None:
    receipts.keep(server.home, receipt(9))
    server.home.runs_path.joinpath(run_id(9), "receipt.json").unlink()
    server.home.runs_path.joinpath(run_id(9), "receipt.json").mkdir()  # reading it raises an OSError that nobody expects
    saved = server.save("unlucky.ipynb", receipts.notebook(code_cell("a", live_output(9))))
    assert store.WIDGET_MIME in saved["cells"][0]["outputs"][0]["data"]


def test_a_contents_manager_that_was_replaced_during_load_has_the_hook(tmp_path: Path) -> None:
    (tmp_path / "zz_replaces_the_manager.py").write_text(REPLACER, "utf-8")
    with serving(tmp_path, "--ServerApp.jpserver_extensions={'zz_replaces_the_manager': True}") as server:
        assert "zz_replaces_the_manager | extension was successfully loaded." in server.log
        saved = server.save("lifted.ipynb", receipts.notebook(code_cell("a", final_output(receipt(1)))))
        assert run_id(1) in saved["metadata"]["cc_executor"]["receipts"]


# --- the hook alone -----------------------------------------------------------------------------------------------


class Manager:
    """A contents manager that keeps files below a folder, as far as the hook asks."""

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self.hooks: list[Any] = []

    def register_pre_save_hook(self, hook: Any) -> None:
        self.hooks.append(hook)

    def _get_os_path(self, path: str) -> str:
        if self._root is None:
            raise OSError("no such place")
        return str(self._root / path)


class App:
    def __init__(self, manager: object) -> None:
        self.contents_manager = manager


def test_the_hook_is_registered_once_for_each_manager() -> None:
    from cc_executor.server.extension import register

    app = App(Manager(None))
    assert register(app)
    assert not register(app)
    assert len(app.contents_manager.hooks) == 1  # type: ignore[attr-defined] - it is the Manager above
    app.contents_manager = Manager(None)
    assert register(app)


def test_a_manager_without_hooks_is_no_reason_to_fail() -> None:
    from cc_executor.server.extension import register

    assert not register(App(object()))


def test_a_receipt_is_known_without_the_mark_beside_it(state_folder: Path, tmp_path: Path) -> None:
    output = final_output(receipt(1))
    output["metadata"] = {}
    content = receipts.notebook(code_cell("a", output))
    hook = presave.presave_hook(environ={"CC_EXECUTOR_STATE": str(state_folder)})
    hook(model={"type": "notebook", "content": content}, path="a.ipynb", contents_manager=Manager(tmp_path))
    assert list(content["metadata"]["cc_executor"]["receipts"]) == [run_id(1)]


@pytest.mark.parametrize("content", [None, [], {}, {"nbformat": 4, "cells": [1, {"outputs": [2, {"metadata": {"cc_executor": 3}}]}]}])
def test_the_hook_never_raises(content: Any, state_folder: Path) -> None:
    hook = presave.presave_hook(environ={"CC_EXECUTOR_STATE": str(state_folder)})
    hook(model={"type": "notebook", "content": content}, path="a.ipynb", contents_manager=Manager(None))
    hook(model={"type": "notebook", "content": content}, path="a.ipynb", contents_manager=object())
    hook(model={}, path="a.ipynb", contents_manager=object())


def test_the_hook_looks_for_what_the_store_writes() -> None:
    assert presave._MARK == store.MARK
    assert presave._RECEIPT == RECEIPT_MIME


def test_importing_the_extension_is_light() -> None:
    code = f"import sys; sys.path.insert(0, {str(CHECKOUT / 'src')!r}); import cc_executor; cc_executor._jupyter_server_extension_points(); print(*sorted(sys.modules))"
    answer = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, timeout=60, check=False)
    modules = set(answer.stdout.decode().split())
    assert "cc_executor.server.rest" in modules, answer.stderr
    assert not modules & {
        "IPython",
        "anywidget",
        "pydantic",
        "msgspec",
        "cc_executor.api",
        "cc_executor.store.home",
        "cc_executor.model.receipt",
    }
