"""A live view that no page can show: text stands in for it, until a page has it after all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import pytest

from cc_executor.kernel import standin
from cc_executor.kernel.live import WIDGET_MIME
from cc_executor.kernel.standin import StandIn
from cc_executor.model.receipt import RECEIPT_MIME
from support.kernel import Answer, Kernel

SOON: Final = "from cc_executor.kernel import standin\nstandin.PATIENCE, standin.PACE = 0.4, 0.1"
KEY: Final = "sk-ant-api03-" + "Ab3" * 24
RUN: Final = f"%%cc_execute --agent shell --shell bash\nfor n in $(seq 99); do echo line $n; done; echo {KEY}; cat gate"
LIST: Final = "%%cc_tasks\ntasks:\n  - {id: first, run: 'echo from the first'}\n  - {id: second, run: 'cat gate', needs: [first]}"


@pytest.fixture
def soon(own_kernel: Kernel, tmp_path: Path) -> Kernel:
    """A kernel that does not wait long for a page, in a folder with a pipe `gate`."""
    os.mkfifo(tmp_path / "gate")
    assert own_kernel.run(SOON).status == "ok"
    return own_kernel


def shown(answer: Answer) -> dict[str, Any]:
    return answer.displays[0] if answer.displays else {}


def here(kernel: Kernel, model_id: str) -> None:
    """What a page says that has the model of a view."""
    kernel.tell(model_id, {"method": "custom", "content": {"op": "here"}})


@pytest.mark.parametrize(
    ("cell", "words", "stop"),
    [(RUN, "line 98\nline 99\n", "cc-executor cancel "), (LIST, "1/2 first ok", "interrupt its cell")],
    ids=["run", "list"],
)
def test_text_is_shown_until_a_page_has_the_view(soon: Kernel, tmp_path: Path, cell: str, words: str, stop: str) -> None:
    sent = soon.send(cell, allow_stdin=True)
    answer = soon.wait(sent, until=shown)
    model = shown(answer)[WIDGET_MIME]["model_id"]
    soon.wait(sent, until=lambda answer: words in shown(answer)["text/plain"], answer=answer)
    assert WIDGET_MIME not in shown(answer)
    text = shown(answer)["text/plain"]
    assert "cannot show the live view" in text
    assert "pip install ipywidgets 'anywidget==0." in text
    assert stop in text
    assert "line 50\n" not in text, "the last lines are enough"
    assert KEY not in text
    here(soon, model)
    soon.wait(sent, until=lambda answer: WIDGET_MIME in shown(answer), answer=answer)
    (tmp_path / "gate").write_text("open")
    assert soon.wait(sent, answer=answer).status == "ok"
    assert WIDGET_MIME not in shown(answer)
    assert "cannot show" not in shown(answer)["text/plain"]


def test_nothing_stands_in_where_nobody_looks(soon: Kernel, tmp_path: Path) -> None:
    sent = soon.send(f"{RUN}; sleep 1.5")
    answer = soon.wait(sent, until=shown)
    (tmp_path / "gate").write_text("open")
    assert soon.wait(sent, answer=answer).status == "ok"
    updates = [message["content"]["data"] for message in answer.messages if message["msg_type"] == "update_display_data"]
    assert [RECEIPT_MIME in data for data in updates] == [True]


async def test_time_in_which_the_kernel_was_blocked_is_no_time_in_which_a_page_would_have_been_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts: list[str] = []
    monkeypatch.setattr(standin, "replace_mime", lambda data, _metadata, **_where: texts.append(data["text/plain"]))
    stand_in = StandIn(({}, {}), display_id="view", is_heard=lambda: False, words=lambda: "a word", needs="0.11.*", steered="")
    for minute in range(10):
        stand_in.tick(60.0 * minute)
    assert texts == []
    for turn in range(200):
        stand_in.tick(600.0 + 0.04 * turn)
    assert [text.rpartition("\n")[2] for text in texts] == ["a word"]
