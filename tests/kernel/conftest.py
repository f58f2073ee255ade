"""Kernels of both ipykernel lines. One of each serves all tests of a module that leave it as they found it; the others start their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import environments
from support.kernel import Kernel, running_kernel

LOAD = "%load_ext cc_executor"
# Whatever a test has started on the loop is the test's to end.
RESET = """
get_ipython().config.pop('CCExecutor', None)
get_ipython().run_line_magic('reset', '-f')
get_ipython().autoawait = True
import os
os.chdir({folder!r})
for name in [name for name in os.environ if name.startswith('CC_EXECUTOR_')]:
    del os.environ[name]
os.environ['CC_EXECUTOR_STATE'] = {state!r}
get_ipython().run_line_magic('reload_ext', 'cc_executor')
"""


@pytest.fixture(scope="module", params=[environment.name for environment in environments.KERNELS])
def shared_kernel(request: pytest.FixtureRequest, kernelspecs: Path) -> Iterator[Kernel]:
    with running_kernel(request.param) as kernel:
        loaded = kernel.run(LOAD)
        assert loaded.status == "ok", loaded.traceback
        yield kernel


@pytest.fixture
def kernel(shared_kernel: Kernel, tmp_path: Path, state_folder: Path) -> Kernel:
    """A kernel in the test's own folder, with a state folder of the test's own, and the extension as it is after loading."""
    reset = shared_kernel.run(RESET.format(folder=str(tmp_path), state=str(state_folder)), within=60)
    assert reset.status == "ok", reset.traceback
    return shared_kernel


@pytest.fixture
def own_kernel(kernel_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """A kernel that the test may kill, restart or spoil."""
    monkeypatch.chdir(tmp_path)
    with running_kernel(kernel_name) as kernel:
        loaded = kernel.run(LOAD)
        assert loaded.status == "ok", loaded.traceback
        yield kernel
