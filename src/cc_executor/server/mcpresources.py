"""What runs have left, as resources of the Model Context Protocol: receipts, reports, journals, the server's rules. Knows the service and the SDK's types."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncGenerator
from typing import Any, Final

import mcp_types as types
from mcp.shared.exceptions import MCPError
from msgspec.structs import asdict

from cc_executor import __version__
from cc_executor.agents import AGENTS
from cc_executor.errors import CCExecutorError, RunNotFound
from cc_executor.runtime.report import report_of_run
from cc_executor.server.lists import ListSummary
from cc_executor.server.lookup import STREAMS, check_journal
from cc_executor.server.service import Service
from cc_executor.shim import records
from cc_executor.store.journal import RunFolder

CONFIG: Final = "cc-executor://config"
RUNS: Final = "cc-executor://runs/"
PAGE: Final = 20  # runs in one answer
JOURNAL_LIMIT: Final = 256 * 1024  # bytes: the end of a longer stream; `status` reads all of it, piece by piece
LONGEST: Final = 4  # bytes of a character in UTF-8, of which all but the first are 10xxxxxx
CONTINUES: Final = 0x80
VALUES: Final = 100  # the protocol's bound of one completion
LOOK: Final = 1.0  # seconds between two looks at a run that somebody has subscribed to
NOT_FOUND: Final = -32002  # the protocol's code for a resource that is not there
_RUN: Final = re.compile(r"cc-executor://runs/([0-9a-f]{26})/(?:(receipt|report)|journal(?:/([a-z.]+))?)\Z")
_TEMPLATES: Final = (
    ("receipt", "receipt", "The sealed receipt of a run that has ended.", "application/json"),
    ("report", "report", "What there is to tell of a run that has ended, for people.", "text/markdown"),
    ("journal", "journal", "What a run has written on standard output, byte for byte.", "text/plain"),
    ("stream", "journal/{stream}", "The same of another stream: stdout, stderr or control.jsonl.", "text/plain"),
)


def templates() -> types.ListResourceTemplatesResult:
    """The addresses that there are for each run."""
    return types.ListResourceTemplatesResult(
        resource_templates=[
            types.ResourceTemplate(name=name, uri_template=f"{RUNS}{{id}}/{path}", description=about, mime_type=kind)
            for name, path, about, kind in _TEMPLATES
        ]
    )


async def listed(service: Service, *, who: str, before: str) -> types.ListResourcesResult:
    """The rules and the newest runs' receipts, those from `before` back."""
    rows, following = await asyncio.to_thread(service.lookup.executions, who=who, limit=PAGE, before=before)
    found = (
        [] if before else [types.Resource(name="config", uri=CONFIG, description="What this server allows.", mime_type="application/json")]
    )
    for row in rows:
        if isinstance(row, ListSummary):
            continue
        what = row.label or row.prompt
        found.append(
            types.Resource(
                name=f"receipt of {row.id}",
                uri=f"{RUNS}{row.id}/receipt",
                description=f"{row.status}: {what}",
                mime_type="application/json",
            )
        )
    return types.ListResourcesResult(resources=found, next_cursor=following or None)


async def read(service: Service, uri: str, *, who: str) -> types.ReadResourceResult:
    """What is at an address.

    Raises
    ------
    MCPError
        There is no such resource, or it is somebody else's.
    CCExecutorError, Refused
    """
    if uri == CONFIG:
        return _text(uri, json.dumps(config(service), ensure_ascii=False, default=str), "application/json")
    run_id, what, stream = _parts(uri)
    try:
        folder = await asyncio.to_thread(service.lookup.find, run_id, who=who)
        if what:
            receipt = await service.lookup.receipt(run_id, who=who)
            if receipt is None:
                raise MCPError(NOT_FOUND, "The run has not ended yet: there is no receipt. Subscribe to be told.")
            if what == "receipt":
                return _text(uri, receipt.model_dump_json(), "application/json")
            return _text(uri, (await asyncio.to_thread(report_of_run, folder)).markdown, "text/markdown")
        return await asyncio.to_thread(_journal, folder, uri, stream)
    except RunNotFound as error:
        raise MCPError(NOT_FOUND, "There is no such resource.") from error


def config(service: Service) -> dict[str, Any]:
    """What a server allows; folders as paths."""
    return {"version": __version__, "root": service.root, **asdict(service.rules)}


def _parts(uri: str) -> tuple[str, str, str]:
    found = _RUN.match(uri)
    stream = (found[3] or records.STDOUT) if found else ""
    if found is None or (not found[2] and stream not in STREAMS):
        raise MCPError(NOT_FOUND, f"There is no such resource: {uri[:200]}")
    return found[1], found[2] or "", stream


def _text(uri: str, text: str, kind: str) -> types.ReadResourceResult:
    return types.ReadResourceResult(contents=[types.TextResourceContents(uri=uri, text=text, mime_type=kind)])


def _journal(folder: RunFolder, uri: str, stream: str) -> types.ReadResourceResult:
    """The end of a stream, and where it begins."""
    size = folder.size(stream)
    offset = max(0, size - JOURNAL_LIMIT)
    data = folder.read(stream, offset, JOURNAL_LIMIT)
    check_journal(folder)
    if offset:  # it begins with a whole character: else a text would be one or none as its length falls
        cut = next((place for place, byte in enumerate(data[:LONGEST]) if byte & 0xC0 != CONTINUES), 0)
        offset, data = offset + cut, data[cut:]
    meta = {"cc-executor/offset": offset, "cc-executor/size": size}
    try:
        text = types.TextResourceContents(uri=uri, text=data.decode(), mime_type="text/plain", _meta=meta)
    except UnicodeDecodeError:
        blob = base64.b64encode(data).decode()
        return types.ReadResourceResult(
            contents=[types.BlobResourceContents(uri=uri, blob=blob, mime_type="application/octet-stream", _meta=meta)]
        )
    return types.ReadResourceResult(contents=[text])


async def check(service: Service, uri: str, *, who: str) -> None:
    """Make sure that there is, or will be, something at an address. Raises as `read`."""
    if uri == CONFIG:
        return
    run_id, _, _ = _parts(uri)
    try:
        if await asyncio.to_thread(service.lookup.waiting, run_id, who=who) is None:
            await asyncio.to_thread(service.lookup.find, run_id, who=who)
    except RunNotFound as error:
        raise MCPError(NOT_FOUND, "There is no such resource.") from error


async def changes(service: Service, uri: str, *, who: str) -> AsyncGenerator[None]:
    """One item whenever a run's resource has changed, until its receipt is sealed, and one for a sealed one; none for what `who` may not see."""
    try:
        run_id, what, stream = _parts(uri)
        while (entry := await asyncio.to_thread(service.lookup.waiting, run_id, who=who)) is not None:
            if entry.is_over:  # it never begins, and whoever waits for its receipt is to look
                yield None
                return
            await asyncio.sleep(LOOK)
        folder = await asyncio.to_thread(service.lookup.find, run_id, who=who)
    except (MCPError, CCExecutorError):
        return
    receipt = folder.path / records.RECEIPT
    before: object = None
    while folder.path.exists():
        is_sealed = receipt.exists()
        now = (is_sealed, 0 if what else folder.size(stream))
        if now != before and (before is not None or is_sealed):  # it may have ended since its watcher has looked
            yield None
        if is_sealed:
            return
        before = now
        await asyncio.sleep(LOOK)


async def completed(service: Service, params: types.CompleteRequestParams, *, who: str) -> types.CompleteResult:
    """What an argument of a resource template or of a prompt may be: ids of one's own runs, newest first; streams; agents."""
    name, begun = params.argument.name, params.argument.value
    found: list[str] = []
    if isinstance(params.ref, types.ResourceTemplateReference):
        if name == "id":
            found = await asyncio.to_thread(
                lambda: [run.run_id for run in service.home.runs() if service.lookup.is_own(run.run_id, who=who)]
            )
        elif name == "stream":
            found = sorted(STREAMS)
    elif name == "agent":
        found = sorted(AGENTS)
    fitting = [value for value in found if value.startswith(begun)]
    return types.CompleteResult(completion=types.Completion(values=fitting[:VALUES], total=len(fitting), has_more=len(fitting) > VALUES))
