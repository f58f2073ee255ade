"""A real JupyterLab (or Notebook) on loopback, and a real Chromium looking at it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import nbformat
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Request, ViewportSize, WebSocket
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from support import environments
from support.looks import eventually
from support.ports import free_port

CHROMIUM_ARGUMENTS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
START_BUDGET: Final = 100.0  # seconds; 4 s on an idle machine
PATIENCE: Final = 60_000  # milliseconds for what a page is asked to do, as to load; 2 s on an idle machine
VIEWPORT: Final[ViewportSize] = {"width": 1180, "height": 900}
# The light of the ground on which the cells' outputs stand, 0 to 255.
LIGHT: Final = """() => {
    for (let node = document.querySelector('.jp-OutputArea'); node; node = node.parentElement) {
        const [red, green, blue, alpha] = getComputedStyle(node).backgroundColor.match(/[\\d.]+/g).map(Number);
        if (alpha !== 0) return (red + green + blue) / 3;
    }
}"""


def ticks(folder: Path) -> int:
    """How often the rehearsal `ticker` has ticked in this folder."""
    file = folder / "ticks.txt"
    return len(file.read_text().splitlines()) if file.exists() else 0


def notebook_of(*cells: str, kernel: str) -> nbformat.NotebookNode:
    """A notebook of code cells."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
    return notebook


def as_saved(path: Path) -> nbformat.NotebookNode | None:
    """The notebook in a file; None while the server writes it, which empties it first."""
    with contextlib.suppress(nbformat.reader.NotJSONError):
        return nbformat.read(path, as_version=4)
    return None


@dataclass
class Lab:
    """One server."""

    root: Path
    url: str
    token: str
    process: subprocess.Popen[bytes]
    state: Path  # where its kernels keep their runs
    context: BrowserContext | None = None  # of its pages

    def write(self, name: str, *cells: str, kernel: str) -> Path:
        """Put a notebook into the server's folder."""
        path = self.root / name
        nbformat.write(notebook_of(*cells, kernel=kernel), path)
        return path

    def api(self, path: str, method: str = "GET") -> Any:
        """Ask the server's REST API."""
        request = urllib.request.Request(f"{self.url}/api/{path}", method=method, headers={"Authorization": f"token {self.token}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def use_theme(self, theme: str) -> None:
        """Light or Dark, from the next page on."""
        path = self.root.parent / "settings" / "@jupyterlab" / "apputils-extension" / "themes.jupyterlab-settings"
        path.write_text(json.dumps({"theme": f"JupyterLab {theme}"}))

    def leave(self) -> None:
        """Close every page, which would go on asking for its kernel, and end every session."""
        for page in self.context.pages[1:] if self.context is not None else ():  # the first is the empty one with which a browser opens
            page.close()
        self.end_kernels()

    def end_kernels(self) -> None:
        """End every session."""
        for session in self.api("sessions"):
            with contextlib.suppress(OSError):
                self.api(f"sessions/{session['id']}", "DELETE")


@contextlib.contextmanager
def running_lab(folder: Path, *, app: str = "jupyterlab") -> Iterator[Lab]:
    """A server that keeps everything below `folder` and knows the cc_executor server extension."""
    root = folder / "notebooks"
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    root.mkdir()
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    port, token = free_port(), secrets.token_hex(16)
    environ = os.environ | {
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }
    argv = [
        sys.executable, "-m", app, "--no-browser", f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={root}", "--allow-root", "--ServerApp.ip=127.0.0.1",
    ]  # fmt: skip
    log = (folder / "server.log").open("wb")
    process = subprocess.Popen(argv, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    lab = Lab(root, f"http://127.0.0.1:{port}", token, process, Path(environ["CC_EXECUTOR_STATE"]))
    lab.use_theme("Light")

    def answers() -> bool:
        assert process.poll() is None, f"the server ended:\n{(folder / 'server.log').read_text()[-3000:]}"
        with contextlib.suppress(OSError):
            return bool(lab.api("status"))
        return False

    try:
        eventually(answers, within=START_BUDGET, what="the server answers")
        yield lab
    finally:
        if lab.context is not None:
            lab.context.close()
        with contextlib.suppress(OSError):
            lab.end_kernels()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


class NotebookPage:
    """A page that shows one notebook, with the few things that a person does there."""

    def __init__(self, lab: Lab, browser: Browser, name: str, *, classic: bool = False) -> None:
        self.lab = lab
        self.name = name
        self.context = self.context_in(browser)
        self.context.set_default_timeout(PATIENCE)
        self.context.set_default_navigation_timeout(PATIENCE)
        self.channels: list[WebSocket] = []  # to kernels
        self.page: Page = self.context.new_page()
        self.page.on("websocket", lambda socket: self.channels.append(socket) if "/channels" in socket.url else None)
        # A workspace of its own: the tabs of other notebooks are not restored beside it.
        self.path = f"notebooks/{name}" if classic else f"lab/workspaces/{name.partition('.')[0]}/tree/{name}"
        self.open()

    def context_in(self, browser: Browser) -> BrowserContext:
        """The one of this server. It has a profile on disk, as a person's has: from the second time on the page's scripts are there, and compiled."""
        self.lab.context = self.lab.context or browser.browser_type.launch_persistent_context(
            self.lab.root.parent / "profile",
            executable_path=environments.chromium(),
            args=list(CHROMIUM_ARGUMENTS),
            viewport=VIEWPORT,
            reduced_motion="reduce",
        )
        return self.lab.context

    def open(self) -> None:
        """Go to the notebook and wait for its cells and its kernel."""
        self.page.goto(f"{self.lab.url}/{self.path}?token={self.lab.token}")
        self.page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)

    def wait_for_kernel(self) -> None:
        """Wait until the kernel is there, idle, and connected to the page."""
        idle = self.page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").first
        patient = time.monotonic() + 20

        def is_ready() -> bool:
            mine = [
                session["kernel"]
                for session in self.lab.api("sessions")
                if session["path"] == self.name and session["kernel"]["connections"] > 0
            ]
            # The server knows of it from messages alone, and may miss the first ones of a kernel that was restarted; the page asks.
            return any(kernel["execution_state"] == "idle" for kernel in mine) or (
                bool(mine) and time.monotonic() > patient and idle.is_visible()
            )

        eventually(is_ready, within=60, what="the kernel is ready")
        idle.wait_for(timeout=60_000)

    def close(self) -> None:
        """Close the tab as a person would who does not come back."""
        self.page.close()

    def use_theme(self, theme: str) -> None:
        """Settings > Theme; what is open stays open."""
        self.page.get_by_role("menuitem", name="Settings", exact=True).click()
        self.page.locator(".lm-Menu-itemLabel").get_by_text("Theme", exact=True).hover()
        self.page.locator(".lm-Menu-itemLabel").get_by_text(f"JupyterLab {theme}", exact=True).click()

        def is_there() -> bool:
            light = self.page.evaluate(LIGHT)  # none while the style sheet is being exchanged
            return light is not None and (light > 127) == (theme == "Light")

        eventually(is_there, within=60, what=f"the page is {theme.lower()}")
        self.page.locator("#jupyterlab-splash").wait_for(state="detached", timeout=60_000)  # it dims the page meanwhile

    def cell(self, number: int) -> Locator:
        """The cell, counted from 0."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(number)

    def run(self, number: int) -> None:
        """Click into a cell and press Shift+Enter; it is queued or done then."""
        before = self.prompt(number)
        self.cell(number).locator(".cm-content").first.click()
        self.page.keyboard.press("Shift+Enter")
        eventually(lambda: self.prompt(number) != before, within=60, what=f"cell {number} is taken")

    def prompt(self, number: int) -> str:
        """What stands in the brackets: `[*]:`, `[3]:`."""
        return self.cell(number).locator(".jp-InputPrompt").inner_text()

    def wait_done(self, number: int, *, within: float = 60) -> None:
        """Wait until the cell has its number."""
        eventually(
            lambda: self.prompt(number).strip("[]: ").isdigit(),
            within=within,
            what=f"cell {number} is done (it shows {self.prompt(number)!r})",
        )

    def output(self, number: int) -> Locator:
        """The cell's output area."""
        return self.cell(number).locator(".jp-Cell-outputWrapper")

    def clear(self, number: int) -> None:
        """Edit > Clear Cell Output, of a cell with a live view; the view is gone then, and the kernel has heard so.

        It answers nothing to that. What it says to the view, once a second, is a sign that it is at work: the second such frame since then counts.
        """
        told: list[bytes | str] = []
        since: list[bytes | str] = []

        def sent(frame: bytes | str) -> None:
            if b'"cleared"' in (frame.encode() if isinstance(frame, str) else frame):
                told.append(frame)

        def received(frame: bytes | str) -> None:
            if told and b'"comm_msg"' in (frame.encode() if isinstance(frame, str) else frame):
                since.append(frame)

        for socket in self.channels:
            socket.on("framesent", sent)
            socket.on("framereceived", received)
        self.cell(number).locator(".jp-InputPrompt").click()
        self.page.get_by_role("menuitem", name="Edit", exact=True).click()
        self.page.locator(".lm-Menu-itemLabel").get_by_text("Clear Cell Output", exact=True).click()
        view = self.output(number).locator(".ccx")
        eventually(lambda: not view.count() and len(since) >= 2, within=60, what="the view is gone, and the kernel has heard so")
        for socket in self.channels:
            socket.remove_listener("framesent", sent)
            socket.remove_listener("framereceived", received)

    def save(self) -> nbformat.NotebookNode:
        """Press Ctrl+S and read the file when the server has written it, whole."""
        path = self.lab.root / self.name
        # A view saves when it first appears. JupyterLab takes the first of two saves that overlap for a stranger's change, and asks.
        eventually(lambda: time.time_ns() - path.stat().st_mtime_ns > 10**9, within=30, what="nobody has saved for a second")
        # JupyterLab takes no notice of the key while it saves for another reason, as when a view has first appeared (`docmanager:save`).
        eventually(self._save_by_key, within=60, what="the notebook is saved")
        return eventually(lambda: as_saved(path), within=30, what="the notebook is whole")

    def _save_by_key(self) -> bool:
        """Press Ctrl+S; whether the page has then sent the notebook as it is now, and the server has taken it. A save that was under way has an older one.

        JupyterLab asks for the file's date first, with what it is going to send in its hands.
        """
        address = f"/api/contents/{quote(self.name)}"
        begun: list[Request] = []

        def is_sent(request: Request) -> bool:
            if request.method == "GET" and address in request.url and "content=0" in request.url:
                begun.append(request)
            return bool(begun) and request.method == "PUT" and address in request.url

        try:
            with self.page.expect_request(is_sent, timeout=5000) as sent:
                self.page.keyboard.press("Control+s")
        except PlaywrightTimeout:
            return False
        answer = sent.value.response()
        return answer is not None and answer.ok
