"""A real kernel, spoken to as a front end does, with what came back kept by message."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from support.ports import free_port

START_BUDGET: Final = 60.0


@dataclass
class Answer:
    """What one cell gave."""

    status: str = "running"
    messages: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]], repr=False)
    stream: str = field(default="", repr=False)
    ename: str = ""
    evalue: str = ""
    traceback: str = ""
    displays: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])  # the newest data of each display, in order
    metadata: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    value: str | None = None
    payload: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])  # what the pager shows, among others

    def take(self, message: dict[str, Any]) -> bool:
        """Keep one message of the cell; True when it was the last."""
        self.messages.append(message)
        content = message["content"]
        match message["msg_type"]:
            case "stream":
                self.stream += content["text"]
            case "error":
                self.ename, self.evalue = content["ename"], content["evalue"]
                self.traceback = "\n".join(content["traceback"])
            case "display_data":
                self.displays.append({**content["data"], "_id": content.get("transient", {}).get("display_id")})
                self.metadata.append(content["metadata"])
            case "update_display_data":
                for place, known in enumerate(self.displays):
                    if known["_id"] == content["transient"]["display_id"]:
                        self.displays[place] = {**content["data"], "_id": known["_id"]}
                        self.metadata[place] = content["metadata"]
            case "execute_result":
                self.value = content["data"]["text/plain"]
            case "status":
                return content["execution_state"] == "idle"
            case _:
                pass
        return False


class Kernel:
    """One kernel and one client."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self.client = client

    @property
    def pid(self) -> int:
        """The kernel's process."""
        provisioner: Any = self.manager.provisioner  # that of the local machine, which has a process
        return int(provisioner.pid)

    def send(self, code: str, *, allow_stdin: bool = False, cell: str = "") -> str:
        """Queue a cell; its message's id. `allow_stdin`: as a page does, at which a person sits. `cell`: what such a page calls the cell."""
        if not cell:
            return self.client.execute(code, allow_stdin=allow_stdin)
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": allow_stdin,
            "stop_on_error": True,
        }
        message = self.client.session.msg("execute_request", content, metadata={"cellId": cell})
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def wait(
        self,
        message_id: str,
        *,
        within: float = 60,
        until: str | Callable[[Answer], object] | None = None,
        answer: Answer | None = None,
    ) -> Answer:
        """Everything that a cell gives until it is idle, or until `until` stands in its stream output or is true.

        `answer`: what an earlier wait for the same cell has brought, to go on with.
        """
        answer, end = answer or Answer(), time.monotonic() + within
        wanted = (lambda answer: until in answer.stream) if isinstance(until, str) else until
        while True:
            left = end - time.monotonic()
            assert left > 0, f"the cell is not done within {within} s; it is {answer.status}, its last output {answer.stream[-500:]!r}"
            try:
                message = self.client.get_iopub_msg(timeout=left)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") != message_id:
                continue
            if answer.take(message):
                break
            if wanted is not None and wanted(answer):
                return answer
        reply = self._reply(message_id, end)
        answer.status = reply["content"]["status"]
        answer.payload = reply["content"].get("payload", [])
        return answer

    def _reply(self, message_id: str, end: float) -> dict[str, Any]:
        while True:
            message = self.client.get_shell_msg(timeout=max(0.1, end - time.monotonic()))
            if message["parent_header"].get("msg_id") == message_id:
                return message

    def wait_taken(self) -> None:
        """Wait until the kernel has what was sent before. It takes messages in their order, and answers this one beside a cell of ours that is shown."""
        self._reply(self.client.kernel_info(), time.monotonic() + 60)

    def run(self, code: str, *, within: float = 60) -> Answer:
        """Run a cell to its end."""
        return self.wait(self.send(code), within=within)

    def value(self, expression: str) -> str:
        """The repr of an expression."""
        answer = self.run(expression)
        assert answer.status == "ok", answer.traceback
        assert answer.value is not None, f"{expression} shows nothing"
        return answer.value

    def tell(self, comm_id: str, data: dict[str, Any]) -> None:
        """Send a widget a message, as its view in a page does."""
        message = self.client.session.msg("comm_msg", {"comm_id": comm_id, "data": data})
        self.client.shell_channel.send(message)

    def completions(self, text: str) -> list[str]:
        """What Tab offers at the end of `text`."""
        return self._reply(self.client.complete(text), time.monotonic() + 30)["content"]["matches"]

    def restart(self) -> None:
        """Kernel > Restart."""
        self.manager.restart_kernel()
        self.client.wait_for_ready(timeout=START_BUDGET)

    def interrupt(self) -> None:
        """Kernel > Interrupt."""
        self.manager.interrupt_kernel()


@contextlib.contextmanager
def running_kernel(name: str) -> Iterator[Kernel]:
    """A fresh kernel by the name of its kernelspec."""
    # Ports that nobody else gets: those that the manager would ask the system for may be given again before the kernel, much later, binds them.
    ports = {f"{channel}_port": free_port() for channel in ("shell", "iopub", "stdin", "hb", "control")}
    manager = KernelManager(kernel_name=name, cache_ports=False, **ports)
    manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=START_BUDGET)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
