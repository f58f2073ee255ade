"""Everything that an agent could write to act in the reader's browser, in a real one: the live view, the saved card, a notebook from somebody else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import nbformat
import pytest
from anywidget import AnyWidget
from nbformat.sign import NotebookNotary
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, Request, expect

from browser.view_page import ViewPage
from cc_executor.kernel.render import static_bundle
from cc_executor.kernel.standin import needed_version
from cc_executor.model.event import ApiRetried, Event, StderrWritten, TextWritten, ThinkingWritten, ToolCalled, ToolReturned
from cc_executor.model.outcome import Outcome, OutcomeKind
from cc_executor.model.receipt import RECEIPT_MIME, Check, FileChange
from cc_executor.model.transcript import Transcript
from kernel.attacks import EVERY, HOST, MARK
from support.environments import IPYKERNEL7
from support.lab import VIEWPORT, Lab, NotebookPage
from support.leaks import await_none, marked_processes
from support.looks import eventually
from support.receipts import receipt, run_id
from support.runs import run_folders

pytestmark = [pytest.mark.usefixtures("kernelspecs", "claude_cli"), pytest.mark.timeout(300)]

SURROGATES: Final = re.compile("[\ud800-\udfff]")
PAYLOADS: Final = tuple(SURROGATES.sub("\ufffd", payload) for payload in EVERY)  # as decoders hand them on

ACTING: Final = """(roots) => [...document.querySelectorAll(roots)].flatMap((root) => [...root.querySelectorAll("*")]).filter((node) =>
  /^(script|img|iframe|frame|object|embed|style|link|meta|base|form|input|select|textarea|video|audio|svg|math|template|portal|marquee)$/i.test(node.tagName)
  || [...node.attributes].some(({ name, value }) => /^on|^srcdoc$|^formaction$|^ping$|^contenteditable$|commandlinker/.test(name)
    || (name === "style" && /url\\(|expression|position\\s*:\\s*fixed/i.test(value)))
  || (node.href && !/^(https?|mailto):/.test(node.href))
).map((node) => node.outerHTML.slice(0, 200))"""
OPEN_ALL: Final = "document.querySelectorAll('details').forEach((node) => { node.open = true; })"
A_MOMENT: Final = "() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 300)))"  # for what acts only when it is drawn or has failed to load


def events(payload: str, number: int) -> tuple[Event, ...]:
    """A run in which every text that an agent chooses is this one."""
    return (
        TextWritten(block=f"m{number}:0", text=payload, whole=True),
        ThinkingWritten(block=f"m{number}:1", text=payload, whole=True),
        ToolCalled(tool_id=f"t{number}", name=payload, input=json.dumps({payload: payload})),
        ToolReturned(tool_id=f"t{number}", text=payload),
        ToolCalled(tool_id=f"u{number}", name="Bash", input=json.dumps({"command": payload, "description": payload})),
        ToolReturned(tool_id=f"u{number}", text=payload, is_error=True),
        StderrWritten(text=payload),
        ApiRetried(attempt=1, max_attempts=2, delay=1, error=payload),
        TextWritten(block="stdout", text=payload),
    )


def card_of(payload: str, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The saved output of such a run."""
    page = Transcript()
    page.feed(events(payload, number))
    sealed = receipt(
        number, text=payload, model=payload, rehearsed=payload, cwd=payload, argv=(payload,), permission_mode=payload,
        outcome=Outcome(kind=OutcomeKind.FAILED, summary=payload, evidence=(payload,), cure=payload),
        checks=(Check(what=payload, passed=False, detail=payload),), files=(FileChange(path=payload, after="1"),), denials=(payload,),
    )  # fmt: skip
    return static_bundle(sealed, page)


# --- the live view ------------------------------------------------------------------------------------------------


@pytest.mark.row("threats", "attack in the live view", "0 scripts, 0 requests, 0 dialogs, nothing that could act")
def test_nothing_acts_in_the_live_view(view_page: ViewPage, saw: Callable[[str], None]) -> None:
    view_page.make_view(title=PAYLOADS[0])
    view_page.open()
    violations: list[str] = []
    view_page.page.on("console", lambda message: violations.append(message.text) if "Content Security Policy" in message.text else None)
    for number, payload in enumerate(PAYLOADS):
        view_page.show("tool", elapsed=1.0, tool=payload, model=payload, detail=payload, estimate=payload)
        view_page.feed(TextWritten(block=f"m{number}:0", text=payload))
        view_page.turn()
        view_page.feed(*events(payload, number))
        view_page.turn()
        view_page.page.evaluate(OPEN_ALL)
    view_page.settle()
    view_page.page.evaluate(OPEN_ALL)
    view_page.page.mouse.move(300, 200)
    view_page.page.evaluate(A_MOMENT)
    assert view_page.page.locator(".ccx-item").count() > 5 * len(PAYLOADS)
    assert view_page.page.evaluate("window.__pwned") is None
    assert (view_page.requests, view_page.errors, violations) == ([], [], [])
    assert view_page.page.evaluate(ACTING, ".ccx") == []
    saw(f"{len(PAYLOADS)} attacks")


# --- a notebook in JupyterLab -------------------------------------------------------------------------------------


class WatchedPage(NotebookPage):
    """A notebook's page that remembers what it should not have done."""

    def close(self) -> None:
        """Leave the others of its context alone."""
        self.context.remove_listener("page", self._opened)
        super().close()

    def open(self) -> None:
        """Watch from the first moment on."""
        self.elsewhere: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", self._asked)
        self.page.on("dialog", self._dialog)
        self.page.on("console", self._said)
        self.context.on("page", self._opened)
        super().open()

    def _opened(self, page: Page) -> None:
        self.complaints.append(f"a page was opened: {page.url}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((f"{self.lab.url}/", "data:", "blob:", "about:")):
            self.elsewhere.append(request.url)

    def _dialog(self, dialog: Dialog) -> None:
        if dialog.type == "beforeunload":  # JupyterLab's own, when it has not saved yet
            dialog.accept()
            return
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _said(self, message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text:
            self.complaints.append(message.text)

    def look(self, *words: str) -> None:
        """Let everything appear that will, with every fold open, cell by cell: JupyterLab draws what is in view. `words`: what each cell shows at least."""
        for number, word in enumerate(words):
            eventually(lambda number=number, word=word: word in self._text_of(number), within=60, what=f"{word!r} is shown")
            self.page.evaluate(OPEN_ALL)
            self.page.mouse.move(400, 400)
            self.page.evaluate(A_MOMENT)

    def _text_of(self, number: int) -> str:
        """What a cell shows, brought into view; a page that is being built puts its cells in and out again."""
        return self.page.evaluate(
            "(n) => { const cell = document.querySelectorAll('.jp-Notebook .jp-Cell')[n]; cell?.scrollIntoView(); "
            "return cell?.querySelector('.jp-Cell-outputWrapper')?.innerText ?? ''; }",
            number,
        )

    def look_again(self, *words: str) -> None:
        """The same after a reload."""
        self.page.reload()
        self.page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
        self.look(*words)

    @property
    def scripts(self) -> int:
        """How many scripts of the attacks have run."""
        return self.page.evaluate("window.__pwned || 0")

    def assert_harmless(self) -> None:
        assert self.scripts == 0
        assert (self.elsewhere, self.complaints) == ([], [])


class AttackedPage(WatchedPage):
    """One in a context of its own: here the attacks act, on purpose."""

    def context_in(self, browser: Browser) -> BrowserContext:
        """Nothing of it stays."""
        return browser.new_context(viewport=VIEWPORT)

    def close(self) -> None:
        """With its context."""
        self.context.close()


def shown(data: dict[str, Any], metadata: dict[str, Any] | None = None) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("display_data", data=data, metadata=metadata or {})


def notebook(*outputs: nbformat.NotebookNode, **metadata: Any) -> nbformat.NotebookNode:
    """Some cells with these outputs: of one cell JupyterLab draws only the first 50."""
    parts = [outputs[start : start + 40] for start in range(0, len(outputs), 40)]
    cells = [nbformat.v4.new_code_cell("# read me", execution_count=1, outputs=list(part)) for part in parts]
    made = nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": {"name": IPYKERNEL7.name, "display_name": "x", "language": "python"}}
    )
    made.metadata.update(nbformat.from_dict(metadata))
    return made


def write(lab: Lab, name: str, made: nbformat.NotebookNode, *, trusted: bool) -> None:
    """Put it into the server's folder; `trusted`: signed, as if its reader had run it or said Trust."""
    nbformat.write(made, lab.root / name)
    if trusted:
        notary = NotebookNotary(data_dir=str(lab.root.parent / "data"))
        notary.sign(nbformat.read(lab.root / name, as_version=4))
        notary.store.close()


CARD: Final = ".jp-OutputArea-output div[style*='max-width:960px'], .jp-OutputArea-output div[style*='max-width: 960px']"
CARDS: Final = pytest.mark.row(
    "threats", "attack in a saved card", "0 scripts, 0 requests to another host, trusted or not, opened or opened again"
)


@CARDS
@pytest.mark.parametrize("trusted", [False, True], ids=["untrusted", "trusted"])
def test_nothing_acts_in_a_saved_notebook(lab: Lab, browser: Browser, trusted: bool, saw: Callable[[str], None]) -> None:
    cards = [card_of(payload, number) for number, payload in enumerate(PAYLOADS)]
    plain = "\n".join(data["text/plain"] for data, _ in cards)
    outputs = [*(shown(*each) for each in cards), shown({"text/plain": plain}), nbformat.v4.new_output("stream", name="stderr", text=plain)]
    name = f"cards-{trusted}.ipynb"
    write(lab, name, notebook(*outputs), trusted=trusted)
    page = WatchedPage(lab, browser, name)
    cells = ("✗ failed", "✗ failed", "✗ failed")
    page.look(*cells)
    expect(page.page.locator(CARD)).to_have_count(len(PAYLOADS))
    page.look(*cells)  # what was drawn last acts now, if it can
    page.assert_harmless()
    assert page.page.evaluate(ACTING, CARD) == []
    page.save()
    page.look_again(*cells)
    page.assert_harmless()
    page.close()
    saw(f"{len(PAYLOADS)} attacks {'trusted' if trusted else 'untrusted'}")


@CARDS
def test_the_same_attacks_as_they_are_act_in_a_trusted_notebook(lab: Lab, browser: Browser) -> None:
    """So the tests here test something: JupyterLab runs what is trusted."""
    raw = [shown({"text/html": payload}) for payload in PAYLOADS if "http-equiv" not in payload and "position:fixed" not in payload]
    write(lab, "raw.ipynb", notebook(*raw), trusted=True)
    page = AttackedPage(lab, browser, "raw.ipynb")
    eventually(lambda: page.scripts > 2 and sum(HOST in url for url in page.elsewhere) > 5, within=60, what="the attacks act")
    page.close()


@pytest.mark.row(
    "threats",
    "attack by a running agent in JupyterLab",
    "0 scripts, 0 requests to another host, while it runs, at its end, saved and opened again",
)
def test_nothing_acts_while_a_cell_runs_nor_when_it_is_opened_again(lab: Lab, browser: Browser, tmp_path: Path) -> None:
    text = "\n\n".join([*PAYLOADS, "THE END OF IT"])
    script = tmp_path / "attack.toml"
    script.write_text(f"[[turn]]\n[[turn.block]]\npiece = 2000\ntext = {json.dumps(text, ensure_ascii=True)}\n")
    (tmp_path / "attack.txt").write_text(text)
    cells = (
        f"%%cc_execute --rehearse {script}\nSay it.",
        f"%%cc_execute --agent shell --shell bash --no-raise-error\ncat {tmp_path}/attack.txt; cat {tmp_path}/attack.txt >&2; exit 3",
    )
    lab.write("live.ipynb", *cells, "%load_ext cc_executor", kernel=IPYKERNEL7.name)
    page = WatchedPage(lab, browser, "live.ipynb")
    page.page.set_viewport_size({"width": 1180, "height": 2400})
    page.wait_for_kernel()
    page.run(2)
    page.wait_done(2)
    for cell in (0, 1):
        page.run(cell)
        page.wait_done(cell)
    page.look("THE END OF IT", "THE END OF IT")
    page.assert_harmless()
    saved = page.save()
    assert all(RECEIPT_MIME in cell.outputs[0].data for cell in saved.cells[:2])
    page.look_again("THE END OF IT", "THE END OF IT")
    page.assert_harmless()
    expect(page.page.locator(CARD)).to_have_count(2)
    assert page.page.evaluate(ACTING, CARD) == []
    page.close()


# --- a notebook from somebody else --------------------------------------------------------------------------------


def saved_widgets(state: dict[str, Any]) -> dict[str, Any]:
    """Widgets as JupyterLab saves them with a notebook."""
    return {"application/vnd.jupyter.widget-state+json": {"version_major": 2, "version_minor": 0, "state": state}}


def forged(canary: Path) -> nbformat.NotebookNode:
    """A notebook that asks to be run: a live view without its run, a receipt with a command, widgets with code, scripts in every kind of output."""
    touch = f"import os; os.system('touch {canary}')"
    argv = ("/bin/sh", "-c", f"touch {canary}")
    sealed = receipt(1, argv=argv, agent_path="/bin/sh", session_id="../../x", cwd="/", rehearsed=None)
    widget = {"model_id": "5a2b", "version_major": 2, "version_minor": 0}
    state = {
        "5a2b": {"model_module": "@jupyter-widgets/controls", "model_module_version": "2.0.0", "model_name": "HTMLModel",
                 "state": {"value": f"<img src=x onerror='{MARK}'><script>{MARK}</script>"}},
    }  # fmt: skip
    running = {"cc_executor": {"run_id": sealed.run_id, "status": "running", "argv": list(argv), "resume": True, "autostart": True}}
    made = notebook(
        shown({"application/vnd.jupyter.widget-view+json": widget, "text/plain": "Run is going on: %cc attach shows it."}, running),
        shown(
            {RECEIPT_MIME: sealed.model_dump(mode="json"), "text/plain": "done"},
            {"cc_executor": {"run_id": sealed.run_id, "digest": sealed.digest}},
        ),
        shown({"application/javascript": MARK, "text/plain": "js"}),
        shown({"text/html": f"<script>{MARK}</script>", "text/plain": "html"}),
        shown(
            {"text/markdown": f"<img src=x onerror='{MARK}'>", "text/plain": "md"}
        ),  # a remote one would be loaded: JupyterLab does, whoever wrote it
        nbformat.v4.new_output("stream", name="stdout", text=f"<script>{MARK}</script>\x1b]8;;javascript:{MARK}\x07x\x1b]8;;\x07"),
        widgets=saved_widgets(state),
        cc_executor={
            "receipts": {sealed.run_id: {"run_id": sealed.run_id, "argv": list(argv)}, "../../x": {}},
            "autorun": touch,
            "resume": [run_id(1)],
        },
    )
    made.cells[0].metadata.update({"init_cell": True, "autorun": True, "cc_executor": {"run": True}})
    made.cells.append(nbformat.v4.new_code_cell(f"%load_ext cc_executor\n{touch}", metadata={"init_cell": True, "trusted": True}))
    made.cells.append(nbformat.v4.new_code_cell(f"%%cc_execute --agent shell\ntouch {canary}", metadata={"init_cell": True}))
    return made


@pytest.mark.row(
    "threats",
    "notebook from somebody else is opened",
    "no cell runs, no process starts, no run resumes, 0 scripts, also when it is saved",
)
def test_a_forged_notebook_does_nothing_when_it_is_opened_and_saved(lab: Lab, browser: Browser, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    assert await_none([tmp_path, lab.root], budget=60) == [], "of the tests before"
    before = run_folders(lab.state)
    write(lab, "forged.ipynb", forged(canary), trusted=False)
    page = WatchedPage(lab, browser, "forged.ipynb")
    page.wait_for_kernel()
    page.look("done")
    page.assert_harmless()
    page.cell(0).locator(".cm-content").first.click()
    page.page.keyboard.press("End")
    page.page.keyboard.type(" ")
    saved = page.save()
    page.look("done")
    page.assert_harmless()
    assert not canary.exists()
    assert marked_processes([tmp_path, lab.root]) == []
    assert run_folders(lab.state) == before
    assert [page.prompt(number) for number in (1, 2)] == ["[ ]:", "[ ]:"]
    assert (
        "../../x" not in json.dumps(saved.metadata["cc_executor"].get("receipts", {}))
        or saved.metadata["cc_executor"]["receipts"]["../../x"] == {}
    )
    page.close()


@pytest.mark.row(
    "threats",
    "anywidget that somebody has saved in a notebook",
    "its code runs where JupyterLab has anywidget, with and without cc_executor (said in docs/security.md); nowhere else",
)
def test_a_saved_anywidget_acts_as_the_docs_say_and_not_where_anywidget_is_switched_off(lab: Lab, browser: Browser) -> None:
    """The first half is no promise: when it fails, JupyterLab or anywidget has come to heed trust, and docs/security.md can say so."""
    version = needed_version(AnyWidget())
    module = {"model_module": "anywidget", "model_module_version": f"~{version}", "model_name": "AnyModel"}
    view = {"_view_module": "anywidget", "_view_module_version": f"~{version}", "_view_name": "AnyView"}
    code = f"{MARK}; export default {{ initialize() {{ {MARK} }}, render() {{ {MARK} }} }}"
    saved = saved_widgets({"5a2c": {**module, "state": {**view, "_esm": code, "_anywidget_id": "cc_executor.kernel.widgets.RunView"}}})
    live = {"application/vnd.jupyter.widget-view+json": {"model_id": "5a2c", "version_major": 2, "version_minor": 0}, "text/plain": "live"}
    write(lab, "saved.ipynb", notebook(shown(live), widgets=saved), trusted=False)
    page = AttackedPage(lab, browser, "saved.ipynb")
    eventually(lambda: page.scripts > 0, within=60, what="the widget's code runs")

    page_config = lab.root.parent / "config" / "labconfig" / "page_config.json"
    page_config.parent.mkdir(parents=True, exist_ok=True)
    page_config.write_text('{"disabledExtensions": {"anywidget": true}}')
    try:
        with page.page.expect_console_message(lambda message: "No version of module anywidget" in message.text, timeout=60_000):
            page.page.reload()  # JupyterLab says what it cannot make
        page.look("live")
        assert page.scripts == 0
    finally:
        page_config.unlink()
    page.close()
