"""Every code block of the README and the docs does what the page says. `support.pages` has the convention, `support.run_page` runs it."""

from __future__ import annotations

import ast
import json
import tomllib
from pathlib import Path

import pytest

from support.environments import IPYKERNEL7
from support.pages import PAGES, RUN, Block, Kind, UnknownBlock, blocks, links, name
from support.run_page import BlockFailed, run_page


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_says_what_it_is_and_parses(page: Path) -> None:
    before: Block | None = None
    for block in blocks(page):
        match block.kind:
            case Kind.SCRIPT | Kind.SIGNATURE:
                ast.parse(block.text, filename=block.place)
            case Kind.CELL if block.language == "python":
                compile(block.text, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            case Kind.JSON:
                json.loads(block.text)
            case Kind.TOML:
                tomllib.loads(block.text)
            case Kind.OUTPUT:
                assert before is not None, f"{block.place}: there is no block whose output this could be"
                assert before.kind in RUN, f"{block.place}: the block before it is not run"
            case _:
                pass
        before = block


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        assert (page.parent / target).exists(), f"{name(page)}: {target}"


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    return IPYKERNEL7.register(tmp_path / "jupyter")


@pytest.mark.runs_code
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_page_runs_as_written(page: Path, kernel: str, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    run_page(page, folder, kernel=kernel)


def fenced(info: str, text: str) -> str:
    return f"```{info}\n{text}\n```\n\n"


@pytest.mark.runs_code
def test_a_page_is_one_notebook(kernel: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        fenced("python", "import asyncio\nfor n in range(3):\n    print('line', n)")
        + fenced("text output", "line 0\n...\nline 2")
        + fenced("ipython", "%pwd\nawait asyncio.sleep(0, n)")
        + fenced("text output", "2")
        + fenced("python raises=ZeroDivisionError", "n / 0")
        + fenced("python script", "import asyncio\nasyncio.run(asyncio.sleep(0))\nprint('script')")
        + fenced("text output", "script")
        + fenced("bash run", "echo $((40 + 2)) > file; cat file")
        + fenced("text output", "42")
    )
    run_page(page, tmp_path, kernel=kernel)


@pytest.mark.runs_code
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (fenced("python", "1 / 0"), "ZeroDivisionError"),
        (fenced("python raises=KeyError", "1 / 0"), "raised ZeroDivisionError"),
        (fenced("python raises=KeyError", "1"), "raised nothing"),
        (fenced("python", "print(1)") + fenced("text output", "2"), "wrote\n1"),
        (fenced("python script", "raise SystemExit(3)"), "exit status 3"),
        (fenced("bash run", "false\ntrue"), "exit status 1"),
    ],
)
def test_a_page_that_says_something_wrong_is_found_out(text: str, complaint: str, kernel: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(BlockFailed, match=complaint):
        run_page(page, tmp_path, kernel=kernel)


@pytest.mark.parametrize("info", ["", "py", "bash", "text raises=KeyError"])
def test_a_block_that_does_not_say_what_it_is_is_refused(info: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(fenced(info, "x"))
    with pytest.raises(UnknownBlock, match=r"page\.md:1"):
        list(blocks(page))
