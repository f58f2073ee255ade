"""ipykernel 7.0 to 7.3 leave a request unread that comes while a reply goes out. Where the extension is loaded, it is read all the same."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import environments
from support.kernel import Kernel, running_kernel

# Each reply takes as long as a busy machine would need for it, so that the request that is sent meanwhile is there before the reply is out.
SLOW_REPLIES = """
import time

class Slow:
    def __init__(self, socket):
        self.socket = socket

    def send_multipart(self, message):
        time.sleep(0.3)
        self.socket.send_multipart(message)

manager = get_ipython().kernel.shell_channel_thread.manager
manager._shell_socket = Slow(manager._shell_socket)
"""
LOOKS = """
import asyncio, time
stream, looks = get_ipython().kernel.shell_stream, []
flush = stream.flush
begun = time.monotonic()
stream.flush = lambda *words: (looks.append(words), flush(*words))[1]
while time.monotonic() < begun + 1 or len(looks) < {least} and time.monotonic() < begun + 60:
    await asyncio.sleep(0.1)
del stream.flush
seconds = time.monotonic() - begun
"""


@pytest.fixture
def kernel(kernelspecs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    environments.register_kernels(kernelspecs, [environments.IPYKERNEL73])
    monkeypatch.chdir(tmp_path)
    with running_kernel(environments.IPYKERNEL73.name) as kernel:
        yield kernel


def test_a_request_that_comes_while_a_reply_goes_out_is_answered(kernel: Kernel) -> None:
    loaded = kernel.run("%load_ext cc_executor")
    assert loaded.status == "ok", loaded.traceback
    assert kernel.run(SLOW_REPLIES).status == "ok"
    for number in range(5):
        kernel.send("pass")
        while kernel.client.get_iopub_msg(timeout=20)["content"].get("execution_state") != "idle":
            pass
        answer = kernel.wait(kernel.send(f"print({number})"), within=20)  # sent while the reply to the first is held back
        assert answer.stream == f"{number}\n"


def test_nothing_looks_once_the_extension_is_unloaded(kernel: Kernel) -> None:
    kernel.run("%load_ext cc_executor")
    kernel.run("%reload_ext cc_executor")
    kernel.run(LOOKS.format(least=2))
    assert kernel.value("2 <= len(looks) <= 4 * seconds + 1") == "True", "one that looks four times a second, not two"
    kernel.run("%unload_ext cc_executor")
    kernel.run(LOOKS.format(least=0))
    assert kernel.value("looks") == "[]"


def test_the_doctor_says_so(state_folder: Path) -> None:
    command = environments.IPYKERNEL73.python.with_name("cc-executor")
    done = subprocess.run([command, "doctor", "--json"], capture_output=True, text=True, timeout=60, check=False)
    found = {finding["what"]: finding for finding in json.loads(done.stdout)}["kernels"]
    assert not found["ok"]
    assert not found["required"]
    assert "ipykernel 7.3" in found["detail"]
    assert found["cure"] == "pip install --upgrade ipykernel"
