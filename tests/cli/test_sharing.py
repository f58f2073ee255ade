"""`cc-executor history share` and `shared`, as processes of their own, with a real Redis."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.test_cli import cli
from support.redis import running_redis


def test_runs_go_out_and_every_machine_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("run", "--agent", "shell", "--label", "before", "--cwd", tmp_path, "true")
    with running_redis() as server:
        monkeypatch.setenv("CC_EXECUTOR_REDIS", server.url)
        assert cli("history", "share").stdout == "0 runs were sent.\n"
        assert cli("history", "shared").stderr == "No such run is known.\n"
        assert cli("history", "share", "--all").stdout == "1 run was sent.\n"
        monkeypatch.setenv("CC_EXECUTOR_STATE", str(tmp_path / "of another machine"))
        (row,) = json.loads(cli("history", "shared", "--json").stdout)
        assert (row["label"], row["outcome"]) == ("before", "ok")
        assert cli("history", "shared", "--csv", "--outcome", "failed").stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "CC_EXECUTOR_REDIS is not set"),
        ("redis://example.invalid", "no password"),
        ("unix:///nowhere/s", "Redis cannot be reached"),
    ],
)
def test_what_hinders_is_one_sentence(url: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC_EXECUTOR_REDIS", url)
    for command in ("share", "shared"):
        done = cli("history", command)
        assert said in done.stderr
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
