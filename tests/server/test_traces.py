"""Spans of a server's runs and lists, by the real OTLP exporter, at a collector on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.runs import wait_for
from support.served import Json, Server, serving
from support.spans import Collector, collecting

RUNS = "/cc-executor/api/v1/execute"
WITHIN = 90.0  # seconds
# As docs/neighbours.md has it.
SET_UP = """
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
"""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("traced")
    (folder / "config").mkdir()
    (folder / "config" / "jupyter_server_config.py").write_text(SET_UP)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_TRACES_EXPORTER", "otlp")
        environment.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        with serving(folder, "--CCExecutorServer.max_running=1", "--CCExecutorServer.max_queued=5") as served:
            yield served


def traceparent(number: int) -> tuple[str, str, dict[str, str]]:
    """A trace, a span of it, and the header that names both."""
    trace_id, span_id = f"{number:032x}", f"{number:016x}"
    return trace_id, span_id, {"traceparent": f"00-{trace_id}-{span_id}-01"}


def execute(server: Server, headers: dict[str, str], **body: object) -> Json:
    answer = server.client.post(RUNS, json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()


def test_a_run_is_part_of_the_trace_of_its_request_also_when_it_had_to_wait(
    server: Server, collector: Collector, claude_cli: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    before, _, header = traceparent(0xA0)
    execute(server, header, prompt=f"until [ -e {gate} ]; do sleep 0.05; done", agent="shell", shell="bash")  # noqa: S604 - an option of a run, no call of a process
    first, above_first, header = traceparent(0xA1)
    execute(server, header, prompt="hello", rehearse="hello")
    second, above_second, header = traceparent(0xA2)
    waiting = execute(server, header, prompt="echo second", agent="shell")
    assert waiting["status"] == "queued"
    gate.touch()
    # A run's own span ends first, and may be sent before those below it.
    names = (("run shell", before), ("invoke_agent claude", first), ("chat", first), ("run shell", second))
    wait_for(lambda: all(collector.named(name, trace) for name, trace in names), within=WITHIN)
    [run] = collector.named("invoke_agent claude", first)
    assert run["parent"] == above_first
    assert run["scope"] == "cc_executor"
    assert run["attributes"]["gen_ai.provider.name"] == "anthropic"
    assert [span["parent"] for span in collector.named("chat", first)] == [run["id"]]
    assert [span["parent"] for span in collector.named("run shell", second)] == [above_second]


def test_a_list_is_told_by_the_process_that_runs_it(server: Server, collector: Collector) -> None:
    trace_id, above, header = traceparent(0xB1)
    execute(server, header, tasks=[{"id": "one", "run": "true"}, {"id": "two", "run": "true", "needs": ["one"]}], name="two steps")
    wait_for(lambda: collector.named("invoke_workflow", trace_id), within=WITHIN)
    [whole] = collector.named("invoke_workflow two steps", trace_id)
    assert whole["parent"] == above
    wait_for(lambda: len(collector.named("run shell", trace_id)) == 2, within=WITHIN)
    tasks = {span["id"]: span for span in collector.named("task", trace_id)}
    assert {span["name"] for span in tasks.values()} == {"task one", "task two"}
    assert {span["parent"] for span in tasks.values()} == {whole["id"]}
    assert {span["parent"] for span in collector.named("run shell", trace_id)} == set(tasks)


def test_a_header_that_names_no_trace_is_no_error(server: Server, collector: Collector) -> None:
    known = len(collector.named("run shell"))
    execute(server, {"traceparent": "00-nonsense"}, prompt="true", agent="shell")
    wait_for(lambda: len(collector.named("run shell")) > known, within=WITHIN)
    assert collector.named("run shell")[-1]["parent"] == ""
