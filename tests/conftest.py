"""The world of every test: a home, a state folder and a Jupyter of its own, the real CLI on PATH, nobody's login; and no run left alive at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import settings

from cc_executor.store.home import StateHome
from support import environments, tables
from support.leaks import await_none

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Cheap ones first, so that a fault is seen soon; what is sensitive to load comes late.
ORDER: Final = (
    "project", "model", "agents", "policy", "wire", "store", "shim", "runtime", "security", "rehearsal", "docs", "cli", "kernel", "floods",
    "server", "browser",
)  # fmt: skip
# Of the last folder the longest files come first: at the end the other workers would wait for them.
LONGEST: Final = (
    "test_habits.py", "test_attacks.py", "test_lab.py", "test_view.py", "test_past_the_kernel.py", "test_asks.py", "test_restart.py",
    "test_tasks.py", "test_bell.py", "test_pictures.py", "test_list_past_the_kernel.py", "test_notebook7.py",
)  # fmt: skip

# What belongs to the person at the machine: logins, addresses, their own runs, how their own Jupyter is set up, and the `make` that runs this.
PERSONAL: Final = ("ANTHROPIC_", "CLAUDE", "CC_EXECUTOR_", "JUPYTER", "JPY_", "IPYTHON", "XDG_", "MAKE", "MFLAGS")
KEPT: Final = frozenset({
    "CC_EXECUTOR_TEST_IPYKERNEL6", "CC_EXECUTOR_TEST_KERNELS", "CC_EXECUTOR_TEST_CLI", "CC_EXECUTOR_TEST_PICTURES", "CC_EXECUTOR_TEST_LONG",
    "CC_EXECUTOR_TEST_SEEDS",
})  # fmt: skip


class World:
    """The folder below which everything of one test session lies. Its path is short: a Unix socket's name holds 107 bytes."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="cc-"))
        self.jupyter = self._folder("jupyter")
        self._outside = dict(os.environ)
        self._states = 0

    def _folder(self, name: str) -> Path:
        path = self.root / name
        path.mkdir()
        return path

    def new_state(self) -> Path:
        """A state folder that nobody has used; it is for cc_executor to make."""
        self._states += 1
        return self.root / f"s{self._states}"

    def enter(self) -> None:
        """Let the environment name the folders, and nothing personal."""
        cli_folder = self._folder("bin")
        with contextlib.suppress(environments.Missing):  # the tests that need it say so, by the fixture `claude_cli`
            (cli_folder / "claude").symlink_to(environments.claude_cli())
        for name in [name for name in os.environ if name.startswith(PERSONAL) and name not in KEPT]:
            del os.environ[name]
        # Where images set this, each of the thousand processes of the tests would compile all of cc_executor anew: a quarter of their time.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        sys.dont_write_bytecode = False
        os.environ |= {
            "HOME": str(self._folder("home")),
            "PATH": os.pathsep.join([str(cli_folder), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "CC_EXECUTOR_STATE": str(self.new_state()),
            "JUPYTER_PATH": str(self.jupyter),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def leave(self) -> None:
        """Give the environment back and remove the folders."""
        os.environ.clear()
        os.environ |= self._outside
        shutil.rmtree(self.root, ignore_errors=True)


WORLD: Final = pytest.StashKey[World]()

# The same examples every time, so that a change is judged and not the dice; HYPOTHESIS_PROFILE=long throws them, and often.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("long", max_examples=3_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", choices=tables.NAMES, help="run the tests of one table of promises, and print it")


def pytest_configure(config: pytest.Config) -> None:
    if name := config.getoption("--table"):
        config.pluginmanager.register(tables.Tables(name))
    world = config.stash[WORLD] = World()
    world.enter()
    config.add_cleanup(world.leave)
    # Whoever ends the tests by SIGTERM gets the same cleaning up as with Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A shell's `&` without job control, `nohup` and some CI runners start us with SIGINT ignored. What the tests interrupt, here and in children, is to feel it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    tests = config.rootpath / "tests"

    def cost(item: pytest.Item) -> tuple[int, int]:
        folder = item.path.relative_to(tests).parts[0] if item.path.is_relative_to(tests) else ""
        place = ORDER.index(folder) if folder in ORDER else len(ORDER)
        is_long = folder == ORDER[-1] and item.path.name in LONGEST
        return place, LONGEST.index(item.path.name) if is_long else len(LONGEST)

    items.sort(key=cost)


@pytest.fixture(scope="session", autouse=True)
def no_run_is_left_alive(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """After the last test no process of a run that these tests started may be alive."""
    yield
    left = await_none([pytestconfig.stash[WORLD].root, tmp_path_factory.getbasetemp()])
    for process in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    assert not left, "processes of runs are still alive:\n" + "\n".join(
        f"  {item.pid} of run {item.run_id}: {item.command}" for item in left
    )


@pytest.fixture(autouse=True)
def state_folder(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own `CC_EXECUTOR_STATE`. What a session-wide fixture has started before keeps the one that it was started with."""
    path = pytestconfig.stash[WORLD].new_state()
    monkeypatch.setenv("CC_EXECUTOR_STATE", str(path))
    return path


@pytest.fixture
def home(state_folder: Path) -> StateHome:
    """The state folder of the test, as the product sees it."""
    return StateHome(state_folder)


saw = tables.saw


@pytest.fixture
def noon() -> Iterator[None]:
    """The time zone in which it is between 12 and 13 o'clock: no day ends during the test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", f"NOON{time.gmtime().tm_hour - 12:+d}")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asyncio: the loop that a kernel has."""
    return "asyncio"


@pytest.fixture(scope="session")
def claude_cli() -> Path:
    """The real Claude Code CLI (it is on PATH, too)."""
    return environments.claude_cli()


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The executable of a Chromium, for playwright's `executable_path`."""
    return environments.chromium()


@pytest.fixture
def browser(chromium: Path) -> Iterator[Browser]:
    """A Chromium for one test: its loop would be in the way of the others'."""
    from playwright.sync_api import sync_playwright  # here: most tests show nothing

    from support.lab import CHROMIUM_ARGUMENTS

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(chromium), args=list(CHROMIUM_ARGUMENTS))
        yield launched
        launched.close()


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder for thousands of files, of which no disk has to hear."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def kernelspecs(pytestconfig: pytest.Config) -> Path:
    """The data folder with the kernelspecs of both ipykernel lines; `JUPYTER_PATH` names it."""
    folder = pytestconfig.stash[WORLD].jupyter
    environments.register_kernels(folder)
    return folder


@pytest.fixture(params=[environment.name for environment in environments.KERNELS])
def kernel_name(request: pytest.FixtureRequest, kernelspecs: Path) -> str:
    """The name of a kernelspec: the test runs once for each ipykernel line."""
    return request.param
