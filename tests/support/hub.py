"""A real JupyterHub on loopback with the configuration that the docs show, its proxy, and servers of several people."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from cc_executor.store.home import StateHome, state_path
from support.environments import CHECKOUT, hub_proxy
from support.lab import free_port
from support.looks import eventually
from support.served import leave_out_jupyterlab

CONFIGURATION: Final = CHECKOUT / "docs" / "hub" / "jupyterhub_config.py"
PASSWORD: Final = "the-password-of-the-tests"
ADMIN_TOKEN: Final = "the-token-of-the-tests-service"
CULLER_TOKEN: Final = "the-token-of-the-culler"
START_BUDGET: Final = 120.0  # seconds; a hub 2 s and a server 3 s on an idle machine

# What the shipped file leaves to the hub that it is put into.
_OWN: Final = """
import os, sys
load_subconfig({shipped!r})
c = get_config()
c.JupyterHub.bind_url = {url!r}
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub_port}"
c.JupyterHub.db_url = "sqlite:///:memory:"
c.JupyterHub.cookie_secret_file = {folder!r} + "/cookie_secret"
c.ConfigurableHTTPProxy.command = {proxy!r}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.ConfigurableHTTPProxy.pid_file = {folder!r} + "/proxy.pid"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {{"root"}}
c.DummyAuthenticator.password = {password!r}
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = {folder!r} + "/home/{{username}}"
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser", "--allow-root"]
c.Spawner.poll_interval = 1
c.Spawner.start_timeout = c.Spawner.http_timeout = {budget}
c.Spawner.environment |= {environment!r}
more = {arguments!r}
c.Spawner.args = [each for each in c.Spawner.args if each.partition("=")[0] not in more] + ["=".join(each) for each in more.items()]
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 0}}  # whoever has a server started is answered at once
c.JupyterHub.load_groups = {{"agents": {{"users": {agents!r}}}, "agent-admins": {{"users": ["root"]}}}}
c.JupyterHub.load_roles += [{{
    "name": "tests", "services": ["tests"],
    "scopes": ["admin:users", "admin:servers", "tokens", "shares", "access:servers", "custom:cc-executor:admin"],
}}]
for role in c.JupyterHub.load_roles:
    if role["name"] == "idle-culler":  # the servers of the other tests stay
        role["scopes"] = [f"{{scope}}!user={culled}" for scope in role["scopes"]]
c.JupyterHub.services = [{{"name": "idle-culler", "api_token": {culler_token!r}}}, {{"name": "tests", "api_token": {admin_token!r}}}]
"""


class Hub:
    """A running hub, and a client of it that may do everything."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, folder: Path, log: Path) -> None:
        self.process, self.url, self._folder, self._log = process, url, folder, log
        self.api = httpx.Client(
            base_url=f"{url}/hub/api", headers={"Authorization": f"token {ADMIN_TOKEN}"}, timeout=START_BUDGET, trust_env=False
        )

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def home(self, name: str) -> StateHome:
        """The runs that somebody's server keeps."""
        return StateHome(state_path({"HOME": str(self._folder / "home" / name)}))

    def token(self, name: str, *scopes: str) -> str:
        """A fresh token of somebody, with all that they may or with these scopes alone."""
        answer = self.api.post(f"/users/{name}/tokens", json={"scopes": scopes} if scopes else {})
        assert answer.status_code == 201, answer.text
        return answer.json()["token"]

    def at(self, server: str, token: str = "", **headers: str) -> httpx.Client:
        """A client of somebody's server, with a token, through the proxy."""
        told = headers | ({"Authorization": f"Bearer {token}"} if token else {})
        return httpx.Client(base_url=f"{self.url}/user/{server}", headers=told, timeout=30, trust_env=False)

    def begin(self, name: str) -> None:
        """Have somebody's server started."""
        assert self.api.post(f"/users/{name}/server").status_code in {201, 202}, self.log

    def server(self, name: str) -> dict[str, Any] | None:
        """What the hub knows of somebody's server; None when there is none."""
        return self.api.get(f"/users/{name}").raise_for_status().json()["servers"].get("")

    def await_server(self, name: str) -> psutil.Process:
        """Wait until somebody's server is there; its process."""
        eventually(lambda: (told := self.server(name)) and told["ready"], within=START_BUDGET, what=f"{name}'s server is there")
        told = self.api.get(f"/users/{name}", params={"include_stopped_servers": "1"}).json()["servers"][""]
        return psutil.Process(int(told["state"]["pid"]))

    @contextlib.contextmanager
    def culling(self, after: int) -> Iterator[subprocess.Popen[bytes]]:
        """The culler that the shipped configuration has the hub start, from now on, with another timeout; its process."""
        argv = [sys.executable, "-m", "jupyterhub_idle_culler", f"--timeout={after}", "--cull-every=1", f"--url={self.url}/hub/api"]
        with (self._folder / "culler.log").open("wb") as log:
            process = subprocess.Popen(argv, env=os.environ | {"JUPYTERHUB_API_TOKEN": CULLER_TOKEN}, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def await_no_server(self, name: str, *, within: float) -> None:
        eventually(lambda: self.server(name) is None, within=within, what=f"{name}'s server is gone")


@contextlib.contextmanager
def serving_hub(
    folder: Path, *, agents: Sequence[str], culled: str, arguments: Mapping[str, str], interval: int, cull_after: int
) -> Iterator[Hub]:
    """A hub.

    Parameters
    ----------
    folder : Path
        For all that it keeps, and for everybody's homes.
    agents : sequence of str
        Who may run agents; everybody else can log in, too.
    culled : str
        Whose server the culler looks at.
    arguments : mapping of str to str
        For each server; they go before those that are shipped.
    interval : int
        Seconds between a server's words about its activity.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "JUPYTERHUB_ACTIVITY_INTERVAL": str(interval),
        "JUPYTERHUB_SINGLEUSER_APP": "jupyter_server.serverapp.ServerApp",
        "JUPYTER_CONFIG_PATH": os.pathsep.join([str(folder / "config"), str(CHECKOUT / "jupyter-config")]),
        "PYTHONPATH": str(CHECKOUT / "src"),
        "JUPYTER_PREFER_ENV_PATH": "0",
    }
    settings = {
        "shipped": str(CONFIGURATION), "url": url, "hub_port": free_port(), "proxy_port": free_port(), "folder": str(folder),
        "proxy": list(hub_proxy()), "password": PASSWORD, "environment": environment, "arguments": dict(arguments), "agents": list(agents), "budget": int(START_BUDGET),
        "culled": culled, "admin_token": ADMIN_TOKEN, "culler_token": CULLER_TOKEN,
    }  # fmt: skip
    (folder / "jupyterhub_config.py").write_text(_OWN.format(**settings))
    leave_out_jupyterlab(folder / "config")
    log = folder / "hub.log"
    environ = {name: value for name, value in os.environ.items() if name != "CC_EXECUTOR_STATE"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub", "--config", str(folder / "jupyterhub_config.py")],
            cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    hub = Hub(process, url, folder, log)
    try:
        end = time.monotonic() + START_BUDGET
        while True:
            assert process.poll() is None, hub.log
            with contextlib.suppress(httpx.TransportError):
                if hub.api.get("/users").status_code == 200:
                    break
            assert time.monotonic() < end, hub.log
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
        yield hub
    finally:
        hub.api.close()
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the hub with its proxy, its culler and everybody's servers. At once: what is left for them to do would be tidying up."""
    family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))] if process.poll() is None else []
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(10)
