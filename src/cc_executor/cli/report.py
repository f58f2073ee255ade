"""`cc-executor report`: what there is to tell of a run or of a list, as Markdown or as one HTML page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import anyio
import typer

from cc_executor.cli.kept import hint, home, named
from cc_executor.cli.sealed import receipt_of
from cc_executor.errors import InvalidRequest, RunNotFound
from cc_executor.runtime.report import PAGES, report_named
from cc_executor.store.named import is_there


def report_command(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[RUN|LIST]",
            show_default=False,
            callback=named,
            help="A run's or a list's id, or its beginning; the newest run if not given.",
        ),
    ] = "",
    *,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page to this file; - for standard output.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Write Markdown to standard output; so it is without --html, too.")] = False,
) -> None:
    """Report a run or a task list, from its receipt and its recorded events alone. The same records give the same report."""
    runs = home()
    try:
        report = report_named(runs, what)
    except RunNotFound as error:
        # It may have ended without anybody who sealed it.
        try:
            name = runs.pick(what).run_id
        except RunNotFound:
            raise error from None
        if anyio.run(receipt_of, runs, name) is None:
            raise InvalidRequest(f"Run {what or name} goes on; it can be reported when it has ended.") from None
        report = report_named(runs, name)
    if html is not None and str(html) != "-":
        hint(f"Written: {report.save(_page_name(html)).resolve()}")
    elif html is not None:
        typer.echo(report.html, nl=False)
    if markdown or html is None:
        typer.echo(report.markdown, nl=False)


def _page_name(path: Path) -> Path:
    """`path`, as the name of a page.

    Raises
    ------
    InvalidRequest
        It is a folder, a device or a pipe, or no name at all. With the ending of a page it would be a file beside it that nobody has named.
    """
    place = Path(os.path.expanduser(path))
    if is_there(place) and not place.is_file():
        given = str(path) if str(path) != "." else "the current folder"
        raise InvalidRequest(f"--html takes the name of a file, such as report.html, or - for standard output (given: {given}).")
    return path if path.suffix.lower() in PAGES else path.with_name(f"{path.name}.html")
