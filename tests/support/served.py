"""A real `jupyter server` process on loopback with the extension, and a client that has its token."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx

from cc_executor.runtime import retention
from cc_executor.runtime.retention import plan_pruning
from cc_executor.store.home import StateHome
from support.environments import CHECKOUT
from support.looks import eventually
from support.ports import free_port

Json = dict[str, Any]
TOKEN: Final = "a-token-for-the-tests"
API: Final = "/cc-executor/api/v1"
BOUND: Final = 90.0
START_BUDGET: Final = 100.0


class Server:
    """A running `jupyter server` and a client that has its token."""

    def __init__(self, process: subprocess.Popen[bytes], client: httpx.Client, root: Path, state: Path, log: Path) -> None:
        self.process, self.client, self.root, self.home, self._log = process, client, root, StateHome(state), log

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def save(self, name: str, content: Json) -> Json:
        """PUT as JupyterLab does; the notebook in the file is returned."""
        answer = self.client.put(f"/api/contents/{name}", json={"type": "notebook", "format": "json", "content": content})
        assert answer.status_code in {200, 201}, answer.text
        return json.loads((self.root / name).read_bytes())

    def open(self, name: str) -> Json:
        return self.client.get(f"/api/contents/{name}").raise_for_status().json()["content"]


def leave_out_jupyterlab(config: Path) -> None:
    """Configure servers to do without what else is installed here: half of a start. Whole JupyterLabs are tested in a browser."""
    unused = dict.fromkeys(("jupyterlab", "notebook", "notebook_shim", "jupyter_lsp"), False)
    config.mkdir(exist_ok=True)
    (config / "jupyter_server_config.json").write_text(json.dumps({"ServerApp": {"jpserver_extensions": unused}}))


@contextlib.contextmanager
def serving(folder: Path, *arguments: str, port: int | None = None, state: Path | None = None) -> Iterator[Server]:
    """`state`: another server's state folder, to share it."""
    root, state = folder / "root", state or folder / "state"
    root.mkdir(parents=True, exist_ok=True)
    leave_out_jupyterlab(folder / "config")
    port = port or free_port()
    environ = os.environ | {
        "CC_EXECUTOR_STATE": str(state),
        "JUPYTER_CONFIG_PATH": str(CHECKOUT / "jupyter-config"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "PYTHONPATH": os.pathsep.join([str(folder), str(CHECKOUT / "src")]),
        "JUPYTER_PREFER_ENV_PATH": "0",
    }
    log = folder / "server.log"
    argv = [
        *(sys.executable, "-m", "jupyter_server", "--ip=127.0.0.1", f"--port={port}", "--port-retries=0", "--no-browser", "--allow-root"),
        *(f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={root}", *arguments),
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, env=environ, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"token {TOKEN}"}, timeout=60, trust_env=False
        ) as client:
            server = Server(process, client, root, state, log)
            await_ready(server)
            yield server
    finally:
        with contextlib.suppress(ProcessLookupError):  # a test has killed it
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def await_ready(server: Server) -> None:
    end = time.monotonic() + START_BUDGET
    while time.monotonic() < end:
        assert server.process.poll() is None, server.log
        with contextlib.suppress(httpx.TransportError):
            if server.client.get("/api/status").status_code == 200:
                return
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(0.1)
    raise AssertionError(f"the server did not answer in {START_BUDGET} s:\n{server.log}")


def get(server: Server, name: str, what: str = "status", **query: Any) -> Any:
    """What the API tells of a run or a list."""
    answer = server.client.get(f"{API}/executions/{name}/{what}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def results(server: Server, name: str) -> Any:
    """What a run or a list has made, when it is over."""
    return eventually(lambda: (told := get(server, name, "results"))["done"] and told, within=BOUND, what=f"{name} ends")


def control(server: Server, name: str, op: str, **more: str) -> httpx.Response:
    """A command to a run or a list."""
    return server.client.post(f"{API}/executions/{name}/control", json={"op": op, **more})


def prune(server: Server, run_id: str) -> None:
    """Remove the journal of a run that has its receipt, as `cc-executor history prune` does."""
    now = time.time()
    planned = plan_pruning(server.home, environ={}, now=now, keep=0)
    mine = tuple(each for each in planned.candidates if each.row.run_id == run_id)
    assert mine, planned
    retention.prune(server.home, replace(planned, candidates=mine), environ={}, now=now)
