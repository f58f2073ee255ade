"""`cc-executor server`: the Jupyter servers of this user, and whether they answer for runs. Starts none, and opens nothing."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final, cast

import typer

from cc_executor.cli.group import exits_with
from cc_executor.cli.kept import AsJson, hint, print_json
from cc_executor.errors import InvalidRequest
from cc_executor.model.ansi import clean

PATIENCE: Final = 5.0  # seconds for one answer
MOST: Final = 500  # runs at work that are counted, the API's longest page
_API: Final = "cc-executor/api/v1"
_SIZE: Final = 16 * 1024 * 1024  # bytes of an answer
NOBODY: Final = 1  # exit code


class _NoDetours(urllib.request.HTTPRedirectHandler):
    """A login page is no answer, and the token is for nobody else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


# No proxy: the token is for the server alone, which is on this machine.
_OPENER: Final = urllib.request.build_opener(_NoDetours(), urllib.request.ProxyHandler({}))


@exits_with(f"0 a server answers for runs, {NOBODY} none does")
def status_command(*, as_json: AsJson = False) -> None:
    """Say which Jupyter servers of yours run, and whether cc_executor answers there, in which version, with how many runs at work."""
    try:
        from jupyter_server.serverapp import list_running_servers
    except ImportError:
        raise InvalidRequest("There is no Jupyter server in this environment: `pip install 'cc-executor[server]'`.") from None
    rows = [_row(cast("Mapping[str, Any]", info)) for info in list_running_servers()]
    if as_json:
        print_json(rows)
    elif not rows:
        hint("No Jupyter server of yours is running.")
    else:
        for row in rows:
            said = f"cc_executor {row['version']}, {row['runs']} at work" if row["answers"] else f"no answer: {row['why']}"
            typer.echo(clean(f"{row['url']}  pid {row['pid']}  {row['folder']}  {said}"))
    if not any(row["answers"] for row in rows):
        raise typer.Exit(NOBODY)


def _row(info: Mapping[str, Any]) -> dict[str, Any]:
    """One server: what its own file says, and what it answers. The token is used and never shown."""
    url = str(info.get("url", ""))
    row: dict[str, Any] = {"url": url, "pid": info.get("pid"), "folder": str(info.get("root_dir", "")), "answers": False}
    row |= {"version": "", "runs": None, "why": ""}
    if not url.startswith(("http://", "https://")):
        row["why"] = "it listens on a socket that is not asked"
        return row
    try:
        row["version"] = str(_answer(info, "health")["version"])
        row["runs"] = len(_answer(info, f"executions?status=running&limit={MOST}")["executions"])
        row["answers"] = True
    except urllib.error.HTTPError as error:
        row["why"] = {404: "cc_executor is not enabled there", 302: "it wants a login", 403: "it wants a login"}.get(
            error.code, f"HTTP {error.code}"
        )
    except (OSError, http.client.HTTPException) as error:  # a URLError is an OSError
        row["why"] = str(getattr(error, "reason", "") or error)
    except (ValueError, KeyError, TypeError):
        row["why"] = "what it says is not understood"
    return row


def _answer(info: Mapping[str, Any], path: str) -> Any:
    request = urllib.request.Request(f"{info['url']}{_API}/{path}", headers={"Authorization": f"token {info.get('token', '')}"})  # noqa: S310 - http(s) alone, see above
    with _OPENER.open(request, timeout=PATIENCE) as answer:
        return json.loads(answer.read(_SIZE))
