"""Runs the code blocks of a page in order: cells in one real kernel, scripts and commands in processes of their own."""

from __future__ import annotations

import contextlib
import doctest
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from support.pages import Block, Kind, blocks

BLOCK_BUDGET: Final = 200  # seconds for one block; its page has 600
_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")
_LIKENESS: Final = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class BlockFailed(Exception):
    """A block does not do what its page says."""


def run_page(page: Path, folder: Path, *, kernel: str) -> None:
    """Run every block of `page` that is to be run, with `folder` as working folder and `kernel` as the name of a kernelspec."""
    todo = list(blocks(page))
    with contextlib.ExitStack() as stack:
        run_cell = stack.enter_context(_notebook(folder, kernel)) if any(block.kind is Kind.CELL for block in todo) else None
        written = ""
        for block in todo:
            match block.kind:
                case Kind.CELL:
                    assert run_cell is not None
                    written = run_cell(block)
                case Kind.SCRIPT:
                    written = _run_command(block, [sys.executable, "-c", block.text], folder)
                case Kind.BASH:
                    written = _run_command(block, ["bash", "-euo", "pipefail", "-c", block.text], folder)
                case Kind.OUTPUT:
                    if not doctest.OutputChecker().check_output(block.text, written.rstrip("\n") + "\n", _LIKENESS):
                        raise BlockFailed(f"{block.place}: the block before it wrote\n{written}")
                case _:
                    pass


@contextlib.contextmanager
def _notebook(folder: Path, kernel: str) -> Iterator[Callable[[Block], str]]:
    notebook = nbformat.v4.new_notebook()
    client = NotebookClient(notebook, timeout=BLOCK_BUDGET, kernel_name=kernel, resources={"metadata": {"path": str(folder)}})

    def run_cell(block: Block) -> str:
        cell = nbformat.v4.new_code_cell(block.text, metadata={"tags": ["raises-exception"]} if block.raises else {})
        notebook.cells.append(cell)
        try:
            client.execute_cell(cell, len(notebook.cells) - 1)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise BlockFailed(f"{block.place}: {_ANSI.sub('', str(error))}") from None
        raised = [output["ename"] for output in cell.outputs if output["output_type"] == "error"]
        if raised != ([block.raises] if block.raises else []):
            raise BlockFailed(f"{block.place}: raised {', '.join(raised) or 'nothing'}, not {block.raises}")
        return "\n".join(filter(None, (_plain(output).rstrip("\n") for output in cell.outputs)))

    with client.setup_kernel():
        yield run_cell


def _plain(output: nbformat.NotebookNode) -> str:
    if output["output_type"] == "stream":
        return output["text"] if output["name"] == "stdout" else ""
    return output.get("data", {}).get("text/plain", "")


def _run_command(block: Block, argv: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(argv, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BLOCK_BUDGET, check=False)
    except subprocess.TimeoutExpired:
        raise BlockFailed(f"{block.place}: not finished after {BLOCK_BUDGET} s") from None
    if done.returncode:
        raise BlockFailed(f"{block.place}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
