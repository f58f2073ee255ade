"""Hooks and reports in a real kernel of either ipykernel line."""

from __future__ import annotations

import json
from pathlib import Path

from cc_executor.model.receipt import RECEIPT_MIME
from kernel.cells import NEWEST_LINE, shell_cell
from support.kernel import Kernel

pytestmark = NEWEST_LINE

REGISTER = """
from cc_executor import hook
seen = []
@hook("before_run")
def note(given):
    seen.append(given["moment"])
@hook("after_run", name="gate")
async def broken(given):
    raise RuntimeError("not good enough")
"""


def test_a_hook_of_a_cell_is_called_once_however_often_everything_is_loaded(kernel: Kernel) -> None:
    for code in (REGISTER, "%reload_ext cc_executor", REGISTER, "%reload_ext cc_executor"):
        assert kernel.run(code).status == "ok"
    answer = kernel.run(shell_cell("echo hi", "-o r"))
    assert answer.status == "ok", answer.traceback
    assert kernel.value("seen") == "['before_run']"
    (display,) = answer.displays
    told = "The hook 'gate' (after_run) failed: RuntimeError: not good enough"
    assert told in display["text/plain"]
    assert told in display["text/html"]
    assert [each["status"] for each in display[RECEIPT_MIME]["hooks"]] == ["ok", "failed"]
    kernel.run("from cc_executor import unhook\nunhook(note); unhook(broken); seen.clear()")
    kernel.run(shell_cell("echo hi"))
    assert kernel.value("seen, r.receipt.is_intact") == "([], True)"


def test_a_setting_names_commands_and_one_may_refuse(kernel: Kernel, tmp_path: Path) -> None:
    hooks = [{"when": "before_run", "run": """cat > given.json; echo '{"refuse": "freeze until Monday"}'""", "name": "calendar"}]
    kernel.run(f"%config CCExecutor.hooks = {hooks!r}")
    answer = kernel.run(shell_cell("touch made"))
    assert (answer.status, answer.ename) == ("error", "HookRefused")
    assert answer.evalue == "The hook 'calendar' (before_run) refused: freeze until Monday. Nothing was started."
    assert not (tmp_path / "made").exists()
    assert json.loads((tmp_path / "given.json").read_text())["run"]["prompt"] == "touch made"
    kernel.run("%config CCExecutor.hooks = [{'when': 'after_lunch', 'run': 'x'}]")
    assert "CCExecutor.hooks: the hook 'x' needs `when`" in kernel.run(shell_cell("true")).evalue
    kernel.run("%config CCExecutor.hooks = []")
    assert kernel.run(shell_cell("true")).status == "ok"


def test_a_list_shows_its_hooks_before_and_what_failed_after(kernel: Kernel) -> None:
    body = "hooks:\n  after_task: {run: exit 9, name: gate}\ntasks:\n- {id: a, run: echo hi}\n"
    assert "hook after_task: exit 9  (10 s, tell)" in kernel.run(f"%%cc_tasks --dry-run\n{body}").stream
    answer = kernel.run(f"%%cc_tasks\n{body}")
    assert answer.status == "ok", answer.traceback
    (display,) = answer.displays
    assert "! a: The hook 'gate' (after_task) failed: exit code 9" in display["text/plain"]
    assert "exit code 9" in display["text/html"]


def test_a_report_of_a_run_and_of_a_list_is_shown_and_written(kernel: Kernel, tmp_path: Path) -> None:
    kernel.run(shell_cell("echo '<script>alert(1)</script>'", "-o r --label demo"))
    answer = kernel.run("%cc report")
    assert answer.status == "ok", answer.traceback
    shown = answer.displays[0] if answer.displays else {}
    text = shown.get("text/plain", answer.value or "")
    assert text.startswith("# demo")
    assert "**ok**, claimed" in text
    written = kernel.run("%cc report page.html")
    assert f"Written: {tmp_path / 'page.html'}" in written.stream
    page = (tmp_path / "page.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page
    assert kernel.value("r.report().html == open('page.html').read()") == "True"
    kernel.run("%%cc_tasks -o lst\ntasks:\n- {id: a, run: echo hi}\n")
    assert kernel.value("lst.report().save('list.md').name") == "'list.md'"
    assert "| 1 | a |" in (tmp_path / "list.md").read_text()
    assert kernel.run("%cc report nothing-there").ename == "RunNotFound"
    assert kernel.run("%cc report a b").ename == "InvalidRequest"
    refused = kernel.run("%cc report page.pdf")
    assert (refused.ename, "cannot be written as .pdf" in refused.evalue) == ("InvalidRequest", True)
    assert "'my page.html'" not in kernel.run("%cc report 'my page.html'").stream
    assert (tmp_path / "my page.html").read_text().startswith("<!DOCTYPE html>")
    assert kernel.run("%cc report 'my page.html").evalue.endswith("Close the quotes.")
