"""A report's page in a real browser: nothing in it acts, nothing is asked for, and it reads in light and dark."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Request

from cc_executor.model.listrecord import Begun, Ended
from cc_executor.model.listreport import list_report
from cc_executor.model.report import RunReport
from cc_executor.model.reportpage import list_page, run_page
from kernel.attacks import EVERY
from model.test_report import full_report, listed

CONTRAST = """() => [...document.querySelectorAll('p, td, th, h1, h2, li, summary, .badge, .tiles b, .tiles span, footer')].filter(n => n.offsetParent).map(node => {
  const ground = n => {
    for (let at = n; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!colour.endsWith(', 0)')) return colour;
    }
    return 'rgb(255,255,255)';
  };
  const light = v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const lum = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number).map(light); return .2126 * r + .7152 * g + .0722 * b; };
  const [a, b] = [lum(getComputedStyle(node).color), lum(ground(node))].sort((x, y) => y - x);
  return [(a + .05) / (b + .05), node.className, node.textContent.slice(0, 40)];
}).sort((x, y) => x[0] - y[0])[0]"""


def attacked() -> RunReport:
    return full_report("\n\n".join(attack.encode("utf-8", "replace").decode() for attack in EVERY))


@pytest.mark.row("threats", "a report of a run whose agent writes markup", "nothing in the page or in the Markdown acts or loads")
def test_every_attack_at_once_does_nothing_in_a_report(browser: Browser, tmp_path: Path) -> None:
    one = attacked()
    tasks, records = listed(
        Begun(at=0.0, task="a", attempt=1, run_id=one.receipt.run_id),
        Ended(at=2.0, task="a", attempt=1, outcome="failed", summary=EVERY[0], text=EVERY[0], seconds=2.0),
    )
    whole = list_report("abc-1", tasks, records, {one.receipt.run_id: one}, {one.receipt.run_id: one.receipt})
    for html in (run_page(one), list_page(whole)):
        file = tmp_path / "report.html"
        file.write_text(html, "utf-8")
        page = browser.new_page()
        asked: list[str] = []

        def note(request: Request, asked: list[str] = asked) -> None:
            asked.append(request.url)

        page.on("request", note)
        page.goto(file.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        page.mouse.move(200, 200)
        page.keyboard.press("Tab")
        page.wait_for_load_state("networkidle")
        assert page.evaluate("window.__pwned") is None
        assert asked == [file.as_uri()]
        assert page.evaluate("document.querySelectorAll('script, iframe, object, embed, img, svg, form, input, link, base').length") == 0
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_reads_in_light_and_dark_and_on_a_narrow_screen(browser: Browser, tmp_path: Path, scheme: str) -> None:
    file = tmp_path / "report.html"
    file.write_text(run_page(full_report()), "utf-8")
    context = browser.new_context(color_scheme="dark" if scheme == "dark" else "light", viewport={"width": 380, "height": 800})
    page = context.new_page()
    page.goto(file.as_uri())
    ratio, kind, text = page.evaluate(CONTRAST)
    assert ratio >= 4.5, (ratio, kind, text)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()
