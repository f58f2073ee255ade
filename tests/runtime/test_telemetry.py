"""Runs and lists as OpenTelemetry spans, with the real SDK: who makes them, when, and within which trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from cc_executor.api import make_request
from cc_executor.runtime import telemetry
from cc_executor.runtime.lost import settle
from cc_executor.runtime.run import Run
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunStanding
from cc_executor.tasks import cc_execute_list
from support.runs import BASH, eventually, started, until
from support.spans import recorded, told

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def tree(spans: list[ReadableSpan]) -> dict[str, str]:
    """The name of each span's parent, by its own name."""
    names = {span.context.span_id: span.name for span in spans if span.context}
    return {span.name: names.get(span.parent.span_id, "elsewhere") if span.parent else "" for span in spans}


def span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


async def test_a_run_of_the_real_agent_is_a_tree_of_spans_with_the_recorded_times(
    home: StateHome, claude_cli: Path, tmp_path: Path
) -> None:
    with recorded() as exporter:
        with trace.get_tracer("notebook").start_as_current_span("cell"):
            run = await Run.start(make_request("hello", rehearse="tour", cwd=str(tmp_path)), home=home, environ=os.environ)
        assert [span.name for span in told(exporter)] == ["cell"]  # nothing while it goes on
        with anyio.fail_after(100):
            receipt = await run.finish()
        spans = told(exporter)
    assert tree([span for span in spans if not span.name.startswith("chat")]) == {
        "cell": "", "invoke_agent claude": "cell", "execute_tool Write": "invoke_agent claude", "execute_tool Bash": "invoke_agent claude",
    }  # fmt: skip
    whole = next(span for span in spans if span.name == "invoke_agent claude")
    assert [whole.start_time, whole.end_time] == [int(at.timestamp() * 1e9) for at in (receipt.times.started, receipt.times.ended)]
    turns = [dict(span.attributes or {}) for span in spans if span.name.startswith("chat")]
    assert sum(int(str(turn["gen_ai.usage.output_tokens"])) for turn in turns) == receipt.usage.output_tokens
    about = dict(whole.attributes or {})
    assert about["gen_ai.usage.output_tokens"] == receipt.usage.output_tokens
    assert about["cc_executor.receipt.digest"] == receipt.digest
    assert "haiku" not in str([dict(span.attributes or {}) for span in spans])
    assert "TRACEPARENT" in receipt.env_names


async def test_content_is_told_where_the_standard_switch_says_so(home: StateHome) -> None:
    with recorded() as exporter:
        run = await Run.start(make_request("echo a-word", **BASH), home=home, environ={**os.environ, telemetry.CAPTURE: "span_only"})
        await run.finish()
        [span] = told(exporter)
    assert "a-word" in str(dict(span.attributes or {})["gen_ai.output.messages"])


async def test_the_agent_is_told_of_the_trace_it_is_part_of(home: StateHome) -> None:
    with recorded(), trace.get_tracer("notebook").start_as_current_span("cell") as cell:
        run = await started("echo $TRACEPARENT", home=home)
        receipt = await run.finish()
    above = cell.get_span_context()
    assert receipt.text.split("-")[1:3] == [trace.format_trace_id(above.trace_id), trace.format_span_id(above.span_id)]


async def test_a_run_is_within_the_trace_of_its_environment(home: StateHome) -> None:
    with recorded() as exporter:
        await (await Run.start(make_request("true", **BASH), home=home, environ={**os.environ, "TRACEPARENT": PARENT})).finish()
        [span] = told(exporter)
    assert span.parent is not None
    assert trace.format_span_id(span.parent.span_id) == PARENT.split("-")[2]


@pytest.mark.parametrize("carried", ["nonsense", "00-zz-zz-00", "\udcff"])
async def test_a_trace_that_is_none_costs_nothing(home: StateHome, carried: str) -> None:
    with recorded() as exporter:
        environ = {**os.environ, "TRACEPARENT": carried}
        receipt = await (await Run.start(make_request("true", **BASH), home=home, environ=environ)).finish()
        [span] = told(exporter)
    assert receipt.outcome.ok
    assert span.parent is None


async def test_many_who_follow_a_run_make_its_spans_once(home: StateHome) -> None:
    with recorded() as exporter:
        run = await started("sleep 0.2", home=home)
        others = [await Run.attach(home, run.run_id, environ=os.environ) for _ in range(3)]
        async with anyio.create_task_group() as group:
            for each in (run, *others):
                group.start_soon(each.finish)
        await others[0].finish()
        assert [span.name for span in told(exporter)] == ["run shell"]


async def test_a_run_that_somebody_without_a_provider_has_sealed_is_told_by_who_has_one(home: StateHome) -> None:
    with recorded():
        run = await started("true", home=home)
    await (await Run.attach(home, run.run_id, environ=os.environ)).finish()  # as a process in which nobody has set anything up
    with recorded() as exporter:
        await run.finish()
        await (await Run.attach(home, run.run_id, environ=os.environ)).finish()
        assert [span.name for span in told(exporter)] == ["run shell"]


async def test_a_run_of_long_ago_is_not_told_when_it_is_looked_at(home: StateHome) -> None:
    run = await started("true", home=home)
    await run.finish()
    with recorded() as exporter:
        await (await Run.attach(home, run.run_id, environ=os.environ)).finish()
        assert told(exporter) == []


async def test_a_lost_run_is_told_when_it_is_settled(home: StateHome) -> None:
    with recorded() as exporter:
        run = await started("sleep 600", home=home)
        state = await until(run, lambda state: state.started)
        assert state.started is not None
        os.kill(state.started.shim_pid, signal.SIGKILL)
        await eventually(lambda: run.folder.standing(time.time()) is RunStanding.LOST)
        await to_thread.run_sync(lambda: settle(home, environ=os.environ))
        [span] = told(exporter)
    assert dict(span.attributes or {})["error.type"] == "lost"


async def test_a_list_is_a_span_with_its_tasks_and_their_runs_below(tmp_path: Path) -> None:
    def count(_: Any) -> int:
        return 3

    tasks = [
        {"id": "one", "run": "true"},
        {"id": "two", "call": count, "needs": ["one"]},
        {"id": "three", "run": "false", "needs": ["two"]},
    ]
    with recorded() as exporter:
        with anyio.fail_after(60):
            await cc_execute_list(tasks, cwd=tmp_path, name="three steps", environ=os.environ)
        spans = told(exporter)
    above = {span.name: span for span in spans}
    whole = above["invoke_workflow three steps"]
    assert dict(whole.attributes or {})["error.type"] == "failed"
    assert tree([span for span in spans if span.name.startswith(("invoke", "task"))]) == {
        "invoke_workflow three steps": "", "task one": whole.name, "task two": whole.name, "task three": whole.name,
    }  # fmt: skip
    runs = [span.parent.span_id for span in spans if span.name == "run shell" and span.parent]
    assert sorted(runs) == sorted(span_id(above[name]) for name in ("task one", "task three"))
    assert dict(above["task three"].attributes or {})["error.type"] == "failed"
    assert "error.type" not in dict(above["task two"].attributes or {})


async def test_without_a_provider_nothing_is_written(home: StateHome) -> None:
    run = await started("true", home=home)
    await run.finish()
    assert not {telemetry.MARK, telemetry.TOLD} & {path.name for path in run.folder.path.iterdir()}
    assert not [thread for thread in threading.enumerate() if thread.name == telemetry.THREAD]


@pytest.mark.parametrize("provider", ["", "a_provider_that_is_not_there"])
def test_without_a_provider_nothing_is_imported(provider: str) -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None; from cc_executor import cc_execute_sync;"
        "print(cc_execute_sync('echo hello', agent='shell').text, *[name for name in sys.modules if name.startswith('opentelemetry.')])"
    )
    environ = os.environ | ({"OTEL_PYTHON_TRACER_PROVIDER": provider} if provider else {})
    answer = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout.split() == ["hello"], answer.stderr
    assert not answer.stderr


class Broken(SpanProcessor):
    """What somebody else has plugged in."""

    def __init__(self, moment: str) -> None:
        setattr(self, moment, self._raise)

    def _raise(self, *_: Any) -> None:
        raise RuntimeError("the collector is on fire")


@pytest.mark.parametrize("moment", ["on_start", "on_end"])
async def test_a_provider_that_fails_costs_neither_run_nor_list(home: StateHome, tmp_path: Path, moment: str) -> None:
    with recorded() as exporter:
        provider = trace.get_tracer_provider()
        assert isinstance(provider, TracerProvider)
        provider.add_span_processor(Broken(moment))
        receipt = await (await started("true", home=home)).finish()
        with anyio.fail_after(60):
            result = await cc_execute_list([{"id": "one", "run": "true"}], cwd=tmp_path, environ=os.environ)
        told(exporter)
    assert receipt.outcome.ok
    assert result.ok
