"""Notebooks that are opened after their runs have ended without them: jupyter_server's own contents managers, real runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from jupyter_server.base.call_context import CallContext
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager, LargeFileManager

from cc_executor.model.hook import Moment, StoredHook
from cc_executor.model.receipt import RECEIPT_MIME
from cc_executor.runtime.run import Run
from cc_executor.server import opening
from cc_executor.server.asker import SETTING
from cc_executor.server.extension import register
from cc_executor.server.presave import presave_hook
from cc_executor.shim import records
from cc_executor.store.home import StateHome
from cc_executor.store.hooklog import HookLog
from cc_executor.store.notebook import WIDGET_MIME
from cc_executor.store.place import process_mark
from support.receipts import code_cell, live_output, notebook
from support.runs import eventually, started

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Asker:
    """As much of a request as is asked for."""

    current_user: str
    settings: dict[str, Any]


class App:
    """As much of a server as is asked for. `kernels`: the paths of the notebooks of each kernel's process."""

    def __init__(self, manager: Any, kernels: Mapping[Any, Sequence[str]] | None = None) -> None:
        self.contents_manager = manager
        if kernels is not None:
            self.session_manager, self.kernel_manager, self.kernels = self, self, kernels

    async def list_sessions(self) -> list[dict[str, Any]]:
        return [{"path": path, "kernel": {"id": pid}} for pid, paths in self.kernels.items() for path in paths]

    def get_kernel(self, kernel_id: Any) -> Any:
        return SimpleNamespace(provisioner=SimpleNamespace(pid=kernel_id))


async def left(state: Path, script: str = "echo one; echo two", *, ago: float = 120, **options: Any) -> str:
    """A run that ended two minutes ago, when nobody looked."""
    run = await started(script, home=StateHome(state), cwd=str(state.parent), **options)
    exit_file = run.folder.path / records.EXIT
    await eventually(lambda: exit_file.exists() and not run.folder.is_supervised())
    facts = json.loads(exit_file.read_bytes())
    exit_file.write_text(json.dumps(facts | {"ended_at": facts["ended_at"] - ago}))
    return run.run_id


async def opened(folder: Path, made: dict[str, Any], *, manager: Any = None, kernels: Mapping[Any, Sequence[str]] | None = None) -> Any:
    (folder / "a.ipynb").write_text(json.dumps(made))
    manager = manager or AsyncLargeFileManager(root_dir=str(folder))
    register(App(manager, kernels))
    found = manager.get("a.ipynb")
    return (found if isinstance(found, dict) else await found)["content"]


def live(run_id: str) -> dict[str, Any]:
    output = live_output()
    output["metadata"]["cc_executor"]["run_id"] = run_id
    return notebook(code_cell("a", output))


@pytest.mark.parametrize("kind", [AsyncLargeFileManager, LargeFileManager])
async def test_a_run_that_ended_without_its_kernel_shows_its_end(tmp_path: Path, state_folder: Path, kind: type[Any]) -> None:
    run_id = await left(state_folder, "echo one; echo besides >&2")
    content = await opened(tmp_path, live(run_id), manager=kind(root_dir=str(tmp_path)))
    output = content["cells"][0]["outputs"][0]
    assert WIDGET_MIME not in output["data"]
    assert output["data"][RECEIPT_MIME]["outcome"]["kind"] == "ok"
    assert "one" in output["data"]["text/html"]
    assert "besides" in output["data"]["text/html"], "the page of the run, and not its receipt alone"
    receipt = StateHome(state_folder).find(run_id).receipt()
    assert receipt is not None
    assert receipt.digest == output["data"][RECEIPT_MIME]["digest"]
    assert json.loads((tmp_path / "a.ipynb").read_text()) == live(run_id), "the file is as it was"


async def test_an_end_that_nobody_is_left_to_seal_is_shown_at_once(tmp_path: Path, state_folder: Path) -> None:
    run_id = await left(state_folder, ago=0)
    gone = await anyio.run_process([sys.executable, "-c", "import os; print(os.getpid())"])
    for kernel, is_shown in ((process_mark(), False), (process_mark(int(gone.stdout)), True)):
        made = live(run_id)
        made["cells"][0]["outputs"][0]["metadata"]["cc_executor"]["kernel"] = kernel
        content = await opened(tmp_path, made, manager=AsyncLargeFileManager(root_dir=str(tmp_path)))
        assert (RECEIPT_MIME in content["cells"][0]["outputs"][0]["data"]) == is_shown


async def test_an_end_that_was_sealed_without_its_view_is_shown_whole_too(tmp_path: Path, state_folder: Path) -> None:
    run_id = await left(state_folder, "echo one; echo besides >&2", ago=0)
    await (
        await Run.attach(StateHome(state_folder), run_id, environ=os.environ)
    ).finish()  # as by somebody who asks for its receipt in a terminal
    for _ in range(2):
        content = await opened(tmp_path, live(run_id))
        output = content["cells"][0]["outputs"][0]
        assert "besides" in output["data"]["text/html"]
        assert output["data"][RECEIPT_MIME]["outcome"]["kind"] == "ok"


async def test_nobody_gets_the_end_of_somebody_elses_run_by_opening_or_saving_its_id(tmp_path: Path, state_folder: Path) -> None:
    run_id = await left(state_folder)
    manager = AsyncLargeFileManager(root_dir=str(tmp_path))
    try:
        for who, is_shown in (("bob", False), ("ada", True), ("bob", False)):
            CallContext.set(CallContext.JUPYTER_HANDLER, Asker(who, {SETTING: lambda handler, wanted: handler.current_user == "ada"}))
            content = await opened(tmp_path, live(run_id), manager=manager)
            model = {"type": "notebook", "content": live(run_id)}
            presave_hook(environ=os.environ)(model, "a.ipynb", manager)
            for made in (content, model["content"]):
                assert (RECEIPT_MIME in made["cells"][0]["outputs"][0]["data"]) == is_shown, who
    finally:
        CallContext.set(CallContext.JUPYTER_HANDLER, None)


async def test_an_opening_runs_no_check_and_ends_nothing(tmp_path: Path, state_folder: Path) -> None:
    canary = tmp_path / "canary"
    checked = await left(state_folder, verify=f"touch {canary}")
    hooked = await left(state_folder)
    HookLog(StateHome(state_folder).find(hooked).path).plan((StoredHook(moment=Moment.AFTER_RUN, name="it", command=f"touch {canary}"),))
    going = await started("echo up; sleep 600", home=StateHome(state_folder), cwd=str(tmp_path))
    try:
        for run_id in (checked, hooked, going.run_id, "0" * 26, "../../x", checked[:8]):
            content = await opened(tmp_path, live(run_id), manager=AsyncLargeFileManager(root_dir=str(tmp_path)))
            assert WIDGET_MIME in content["cells"][0]["outputs"][0]["data"], run_id
        made = live(going.run_id)
        gone = await anyio.run_process([sys.executable, "-c", "import os; print(os.getpid())"])
        made["cells"][0]["outputs"][0]["metadata"]["cc_executor"]["kernel"] = process_mark(int(gone.stdout))
        content = await opened(tmp_path, made, manager=AsyncLargeFileManager(root_dir=str(tmp_path)))
        assert RECEIPT_MIME not in content["cells"][0]["outputs"][0]["data"], "it outlives its kernel, and nobody waits for it"
        assert not canary.exists()
        assert [StateHome(state_folder).find(run_id).receipt() for run_id in (checked, hooked)] == [None, None]
        assert going.folder.is_supervised()
    finally:
        await going.end(reason="cancel", by="test", now=True)


@pytest.mark.parametrize("lacks", ["the view", "the word"])
async def test_a_view_is_known_by_its_widget_or_by_its_word(tmp_path: Path, state_folder: Path, lacks: str) -> None:
    made = live(await left(state_folder))
    output = made["cells"][0]["outputs"][0]
    if lacks == "the view":
        del output["data"][WIDGET_MIME]
    else:
        output["metadata"]["cc_executor"]["status"] = ""
    content = await opened(tmp_path, made)
    assert RECEIPT_MIME in content["cells"][0]["outputs"][0]["data"]


async def test_an_opening_seals_so_many_and_leaves_the_rest_to_the_next(
    tmp_path: Path, state_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert opening._SEALED_HERE == 20
    monkeypatch.setattr(opening, "_SEALED_HERE", 1)
    made = notebook(*[code_cell(str(number), live(await left(state_folder))["cells"][0]["outputs"][0]) for number in range(2)])
    shown: list[list[bool]] = []
    for _ in range(2):
        content = await opened(tmp_path, made)
        shown.append([RECEIPT_MIME in cell["outputs"][0]["data"] for cell in content["cells"]])
    assert shown == [[True, False], [True, True]]


async def test_a_run_that_cannot_be_sealed_leaves_the_notebook_as_it_is(
    tmp_path: Path, state_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = await left(state_folder), await left(state_folder)
    (StateHome(state_folder).find(bad).path / "plan.json").write_bytes(b"{")
    made = notebook(*(code_cell(run_id, live(run_id)["cells"][0]["outputs"][0]) for run_id in (bad, good)))
    content = await opened(tmp_path, made)
    assert [RECEIPT_MIME in cell["outputs"][0]["data"] for cell in content["cells"]] == [False, True]
    assert [each.getMessage().partition(":")[0] for each in caplog.records if each.name == opening.__name__] == [
        f"run {bad} could not be sealed"
    ]


@pytest.mark.parametrize(
    ("paths", "is_shown"),
    [
        (["original.ipynb"], False),
        (["a.ipynb"], True),
        (["RTC:/a.ipynb"], True),
        (["original.ipynb", "a.ipynb"], True),
        (["a.ipynb", "original.ipynb"], True),
        ([], False),
    ],
)
async def test_a_copy_s_view_belongs_to_the_kernel_of_its_original(tmp_path: Path, paths: list[str], is_shown: bool) -> None:
    made = live("0" * 26)
    made["cells"][0]["outputs"][0]["metadata"]["cc_executor"]["kernel"] = process_mark()
    for elsewhere in (None, "a pod"):  # the process of a kernel that runs on another machine
        content = await opened(tmp_path, made, kernels={os.getpid(): paths, elsewhere: ["elsewhere.ipynb"]})
        assert (WIDGET_MIME in content["cells"][0]["outputs"][0]["data"]) == is_shown


@pytest.mark.parametrize(
    ("paths", "is_shown"),
    [(["another.ipynb"], False), ([], False), (["a.ipynb"], True), (["RTC:/a.ipynb", "another.ipynb"], True), (None, True)],
)
async def test_a_live_view_is_shown_only_where_its_notebook_has_a_kernel(tmp_path: Path, paths: list[str] | None, is_shown: bool) -> None:
    """A kernel elsewhere may go on, and be this notebook's; one that this server is yet to start has never had the view."""
    # Of a boot before this one, or another container; of this machine, but perhaps of another server; of a system that cannot tell; of a time before marks.
    for kernel in ("1@00000000", process_mark(), "", None, [7]):
        made = live("0" * 26)
        made["cells"][0]["outputs"][0]["metadata"]["cc_executor"]["kernel"] = kernel
        kernels = None if paths is None else {"a pod": paths}
        content = await opened(tmp_path, made, manager=AsyncLargeFileManager(root_dir=str(tmp_path)), kernels=kernels)
        output = content["cells"][0]["outputs"][0]
        assert (WIDGET_MIME in output["data"]) == is_shown
        assert output["data"]["text/plain"] == "cc_executor: running"


@pytest.mark.parametrize(
    "content",
    [
        None,
        1,
        {},
        {"cells": 1},
        {"cells": [1, {"outputs": 1}]},
        {"cells": [{"outputs": [{"data": {WIDGET_MIME: 1}, "metadata": {"cc_executor": 1}}]}]},
    ],
)
def test_whatever_is_no_notebook_is_given_as_it_is(content: Any, state_folder: Path) -> None:
    model = {"type": "notebook", "content": content}
    get = opening.mending(lambda *_: model, environ=os.environ)
    assert get("a.ipynb") is model
    assert model == {"type": "notebook", "content": content}
    assert not state_folder.exists()


@pytest.fixture
def untaken() -> Iterator[int]:
    """A process that was killed and of whose end its parent has not taken note, as a server does of its kernels' every three seconds."""
    with subprocess.Popen(["sleep", "600"]) as killed:
        killed.kill()
        os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
        yield killed.pid


@pytest.mark.parametrize("what", ["run_id", "list_id"])
async def test_a_view_whose_kernel_is_gone_gives_way_to_the_words_that_show_it_again(tmp_path: Path, what: str, untaken: int) -> None:
    ended = await anyio.run_process([sys.executable, "-c", "import os; print(os.getpid())"])
    here = process_mark().partition("@")[2]
    output = live("0" * 26)["cells"][0]["outputs"][0]
    shown: dict[str, bool] = {}
    for kernel in (
        f"{int(ended.stdout)}@{here}",
        f"{untaken}@{here}",
        process_mark(),
        f"{int(ended.stdout)}@00000000",
        "1@",
        "-1@" + here,
        7,
        None,
    ):
        made = {**output, "metadata": {"cc_executor": {what: "0" * 26, "status": "running", "kernel": kernel}}}
        content = await opened(tmp_path, notebook(code_cell("a", made)), manager=AsyncLargeFileManager(root_dir=str(tmp_path)))
        given = content["cells"][0]["outputs"][0]
        assert given["data"]["text/plain"] == output["data"]["text/plain"]
        assert given["metadata"] == made["metadata"], "so that a later save finds its end"
        shown[str(kernel)] = WIDGET_MIME in given["data"]
    assert list(shown.values()) == [False, False, True, True, True, True, True, True], shown
