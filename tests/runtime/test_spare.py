"""A spare: the real CLI, started before its prompt is known. It takes one run like it, or none."""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from cc_executor.api import make_request
from cc_executor.model.outcome import OutcomeKind
from cc_executor.model.request import RunRequest
from cc_executor.rehearsal.loopback import API_KEY
from cc_executor.rehearsal.server import ServedRehearsal, serving
from cc_executor.runtime import spare
from cc_executor.runtime.plan import Plan
from cc_executor.runtime.reconcile import reconcile
from cc_executor.runtime.run import Run
from cc_executor.runtime.verification import Verdict, transcript_roots, verify
from cc_executor.runtime.workspace import trust
from cc_executor.shim import records
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunStanding
from support import environments
from support.runs import BOUND, eventually, to_end, until
from support.shims import ended, marked

pytestmark = pytest.mark.usefixtures("claude_cli", "noon")  # a spare from before midnight is not used after it


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedRehearsal]:
    with serving("background", cwd=str(tmp_path)) as api:
        yield api


@pytest.fixture
def environ(served: ServedRehearsal, tmp_path: Path) -> Iterator[dict[str, str]]:
    (tmp_path / "user").mkdir()
    yield {**os.environ, "HOME": str(tmp_path / "user"), "ANTHROPIC_BASE_URL": served.url, "ANTHROPIC_API_KEY": API_KEY}
    spare.drop()


def asked(folder: Path, prompt: str = "Do it.", **options: Any) -> RunRequest:
    return make_request(prompt, cwd=folder, **{"timeout": 60, "tools": "Bash", "linger": 1, **options})


async def kept(request: RunRequest, *, home: StateHome, environ: dict[str, str]) -> str:
    """The mark of a spare for runs like this one."""
    await anyio.to_thread.run_sync(lambda: spare.prepare(request, home=home, environ=environ, pid=os.getpid()))
    (waiting,) = spare._kept
    return waiting.mark


async def gone(mark: str) -> None:
    await eventually(lambda: not marked(mark))


@pytest.mark.row("outcomes", "an agent that was kept waiting", "takes one run, with its own prompt, and is proved like every other")
async def test_a_spare_takes_the_next_run_and_no_other(
    tmp_path: Path, home: StateHome, environ: dict[str, str], served: ServedRehearsal, saw: Callable[[str], None]
) -> None:
    mark = await kept(asked(tmp_path), home=home, environ=environ)
    pids = set(marked(mark))
    await eventually(lambda: len(os.listdir(tmp_path / "user")) > 0)
    assert served.requests == (), "nothing is asked before there is a prompt"
    assert list(home.runs()) == []

    run = await Run.start(asked(tmp_path, "Do the first.", label="other"), home=home, environ=environ, spared=True)
    plan = Plan.of(run.folder)
    assert int(run.send("status")["agent_pid"]) in pids
    assert plan.mark == mark
    assert plan.waited is not None
    assert "--input-format=stream-json" in plan.argv
    await to_end(run)
    receipt = await run.finish()
    assert receipt.outcome.kind is OutcomeKind.OK, receipt.outcome
    saw(f"{receipt.outcome.kind.value}; it had waited {plan.waited:.1f} s")
    assert receipt.session_id == plan.session_id
    assert json.loads((run.folder.path / records.PROMPT).read_bytes())["message"]["content"] == "Do the first."
    report = verify(receipt, home=home, transcript_roots=transcript_roots(environ))
    assert report.verdict is Verdict.VERIFIED, report
    await gone(mark)

    second = await Run.start(asked(tmp_path, "Do the second."), home=home, environ=environ, spared=True)
    assert (Plan.of(second.folder).mark, Plan.of(second.folder).waited) == ("", None)
    await second.end(reason="cancel", by="test", now=True)


async def test_a_spare_fits_within_a_trace_that_the_environment_names(tmp_path: Path, home: StateHome, environ: dict[str, str]) -> None:
    environ["TRACEPARENT"] = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    mark = await kept(asked(tmp_path), home=home, environ=environ)
    run = await Run.start(asked(tmp_path), home=home, environ=environ, spared=True)
    assert Plan.of(run.folder).mark == mark
    await run.end(reason="cancel", by="test", now=True)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def updated(cli: Path) -> None:
    """Another file by the same name, as an update leaves it."""
    version, fresh = cli.with_name(f"version-{secrets.token_hex(4)}"), cli.with_name("fresh")
    version.write_text(f'#!/bin/sh\nexec {environments.claude_cli()} "$@"\n')
    version.chmod(0o755)
    fresh.symlink_to(version)
    fresh.replace(cli)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder, environ: {"model": "claude-opus-4"},
        lambda folder, environ: {"tools": "Read"},
        lambda folder, environ: {"ask": True},
        lambda folder, environ: {"max_cost": 1.0},
        lambda folder, environ: write(folder / "CLAUDE.md", "Speak French."),
        lambda folder, environ: write(folder.parent / "CLAUDE.md", "Speak French."),
        lambda folder, environ: write(folder / ".claude" / "agents" / "new.md", "---\nname: new\n---\n"),
        lambda folder, environ: write(folder / ".git" / "HEAD", "ref: refs/heads/other"),
        lambda folder, environ: write(Path(environ["HOME"]) / ".claude" / "settings.json", "{}"),
        lambda folder, environ: environ.update(ANTHROPIC_MODEL="other"),
        lambda folder, environ: updated(folder.parent / "claude"),
        lambda folder, environ: [write(folder / ".claude" / "skills" / f"{number}.md", "") for number in range(spare.ENTRIES)],
    ],
    ids=[
        "model",
        "tools",
        "ask",
        "bound",
        "CLAUDE.md",
        "above",
        "agents",
        "branch",
        "the user's settings",
        "environment",
        "update",
        "too many files",
    ],
)
async def test_a_spare_that_would_not_be_what_is_started_now_is_ended(
    tmp_path: Path, home: StateHome, environ: dict[str, str], change: Callable[[Path, dict[str, str]], Any]
) -> None:
    folder = tmp_path / "above" / "work"
    folder.mkdir(parents=True)
    cli = folder.parent / "claude"
    updated(cli)
    mark = await kept(asked(folder, cli=str(cli)), home=home, environ=environ)
    options = change(folder, environ)
    options = {"cli": str(cli), **(options if isinstance(options, dict) else {})}
    run = await Run.start(asked(folder, **options), home=home, environ=environ, spared=True)
    assert (Plan.of(run.folder).mark, Plan.of(run.folder).waited) == ("", None)
    await gone(mark)
    await run.end(reason="cancel", by="test", now=True)


READ: Final = (
    *(
        "work/CLAUDE.md",
        "work/CLAUDE.local.md",
        "work/AGENTS.md",
        "work/.mcp.json",
        "work/.claude/settings.json",
        "work/.claude/rules/a.md",
    ),
    *("work/.git/HEAD", "work/.git/index", "CLAUDE.md", ".mcp.json", ".claude/skills/a/SKILL.md", ".git/HEAD"),
    *(
        "user/CLAUDE.md",
        "user/settings.json",
        "user/settings.local.json",
        "user/agents/a.md",
        "user/commands/a.md",
        "user/skills/a/SKILL.md",
    ),
    *("user/rules/a.md", "user/hooks/a", "user/output-styles/a.md", "user/plugins/installed_plugins.json", "claude"),
)


def test_what_a_session_reads_at_its_start_is_looked_at_and_what_it_writes_is_not(tmp_path: Path) -> None:
    def seen() -> str:
        environ = {"CLAUDE_CONFIG_DIR": str(tmp_path / "user")}
        return spare._seen(str(tmp_path / "work"), str(tmp_path / "claude"), environ)

    for name in READ:
        write(tmp_path / name, "one")
    before = seen()
    assert before == seen()
    for name in ("work/notes.txt", "user/projects/a.jsonl", "user/.claude.json", "user/plugins/cache/a", "work/.git/logs/HEAD"):
        write(tmp_path / name, "one")
    assert seen() == before
    for name in READ:
        (tmp_path / name).write_text("other")
        assert seen() != before, name
        before = seen()
    (tmp_path / "work" / ".claude" / "rules" / "a.md").unlink()
    assert seen() != before


async def test_trust_that_is_given_or_taken_back_is_seen(tmp_path: Path, home: StateHome, environ: dict[str, str]) -> None:
    mark = await kept(asked(tmp_path), home=home, environ=environ)
    trust(str(tmp_path), home=home, environ=environ)
    run = await Run.start(asked(tmp_path), home=home, environ=environ, spared=True)
    assert "--setting-sources=user,project,local" in Plan.of(run.folder).argv
    await gone(mark)
    await run.end(reason="cancel", by="test", now=True)


@pytest.mark.parametrize(
    "options", [{"rehearse": "hello"}, {"resume": "6f1c9b0e-3a53-4a57-9d33-0d9a5f1d2c11"}, {"agent": "shell", "tools": ()}]
)
async def test_of_some_runs_there_is_no_spare(tmp_path: Path, home: StateHome, environ: dict[str, str], options: dict[str, Any]) -> None:
    request = make_request("true", cwd=tmp_path, **{key: value for key, value in options.items() if value})
    spare.prepare(request, home=home, environ=environ, pid=os.getpid())
    assert spare.take() is None


async def test_a_spare_that_cannot_be_started_is_nobody_s_concern(tmp_path: Path, home: StateHome, environ: dict[str, str]) -> None:
    broken = tmp_path / "claude"
    broken.write_text("#!/nonexistent\n")
    broken.chmod(0o755)
    spare.prepare(asked(tmp_path, cli=str(broken)), home=home, environ=environ, pid=os.getpid())
    assert spare.take() is None


@pytest.mark.parametrize("how", ["dropped", "killed", "too old", "another is made", "the next can have none"])
async def test_there_is_at_most_one_and_it_ends(
    tmp_path: Path, home: StateHome, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    mark = await kept(asked(tmp_path), home=home, environ=environ)
    match how:
        case "dropped":
            spare.drop()
        case "killed":
            for pid in marked(mark):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        case "too old":  # it is about to end by itself
            monkeypatch.setattr(spare, "HOLD", spare.MARGIN)
            assert spare.take() is None
        case "the next can have none":
            request = asked(tmp_path, rehearse="hello")
            await anyio.to_thread.run_sync(lambda: spare.prepare(request, home=home, environ=environ, pid=os.getpid()))
        case _:
            other = await kept(asked(tmp_path), home=home, environ=environ)
            assert other != mark
    await gone(mark)
    run = await Run.start(asked(tmp_path), home=home, environ=environ, spared=True)
    assert bool(Plan.of(run.folder).mark) == (how == "another is made")
    await run.end(reason="cancel", by="test", now=True)
    assert run.folder.receipt() is not None


@pytest.mark.parametrize("who", ["agent", "supervisor"])
@pytest.mark.row("faults", "agent that waits ends just when a run is to take it", "the run is started as always, once")
async def test_a_spare_that_ends_just_then_costs_nothing(tmp_path: Path, home: StateHome, environ: dict[str, str], who: str) -> None:
    mark = await kept(asked(tmp_path), home=home, environ=environ)
    (waiting,) = spare._kept
    os.kill(waiting.shim.pid, signal.SIGSTOP)  # so that it is found waiting
    victims = marked(mark) if who == "agent" else [waiting.shim.pid]
    started: list[Run] = []

    async def start() -> None:
        started.append(await Run.start(asked(tmp_path), home=home, environ=environ, spared=True))

    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(start)
            await eventually(lambda: spare._kept == [])  # it has been taken
            for pid in victims:
                with suppress(ProcessLookupError):  # a command of the agent that had ended by itself
                    handle = os.pidfd_open(pid)
                    os.kill(pid, signal.SIGKILL)
                    await anyio.wait_readable(handle)  # with all of its threads
                    os.close(handle)
            with suppress(ProcessLookupError):
                os.kill(waiting.shim.pid, signal.SIGCONT)
    (run,) = started
    assert (Plan.of(run.folder).mark, Plan.of(run.folder).waited) == ("", None)
    await gone(mark)
    assert [each.run_id for each in home.runs()] == [run.run_id]
    await run.end(reason="cancel", by="test", now=True)


@pytest.mark.row(
    "faults", "supervisor of an agent that had been kept waiting is killed", "all of its processes are found by their mark, and ended"
)
async def test_what_a_killed_supervisor_leaves_of_it_is_found(tmp_path: Path, home: StateHome, environ: dict[str, str]) -> None:
    mark = await kept(asked(tmp_path, linger=600), home=home, environ=environ)
    run = await Run.start(asked(tmp_path, linger=600), home=home, environ=environ, spared=True)
    state = await until(run, lambda state: state.started is not None)
    assert state.started is not None
    await eventually((tmp_path / "background.txt").exists)  # of which the agent says nothing
    tools = set(marked(mark)) - {state.started.agent_pid}
    assert tools
    os.kill(state.started.shim_pid, signal.SIGKILL)
    await eventually(lambda: run.folder.standing(time.time()) is RunStanding.LOST)
    await anyio.to_thread.run_sync(lambda: reconcile(home, environ=environ))
    await gone(mark)
    assert all(map(ended, tools))
    receipt = await run.finish()
    assert receipt.outcome.kind is OutcomeKind.LOST, receipt.outcome
