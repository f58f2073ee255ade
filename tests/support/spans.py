"""OpenTelemetry's SDK around a test, and a collector on loopback that takes what the real OTLP exporter sends."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cc_executor.runtime import telemetry
from support.runs import BOUND


@contextlib.contextmanager
def recorded() -> Iterator[InMemorySpanExporter]:
    """A provider for this process. The API lets one be set once and for ever, and the next test is to find none: so it is put in its place and taken out."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    before, trace._TRACER_PROVIDER = trace._TRACER_PROVIDER, provider
    try:
        yield exporter
    finally:
        trace._TRACER_PROVIDER = before


def told(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    """All spans by their start, when nobody makes any more."""
    for thread in threading.enumerate():
        if thread.name == telemetry.THREAD:
            thread.join(BOUND)
    return sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)


@dataclass
class Collector:
    """Spans as a collector got them: name, trace, id, parent, attributes."""

    url: str
    spans: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def named(self, name: str, trace_id: str = "") -> list[dict[str, Any]]:
        return [span for span in self.spans if span["name"].startswith(name) and span["trace"].startswith(trace_id)]


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    collector.spans += [
                        {
                            "name": span.name,
                            "trace": span.trace_id.hex(),
                            "id": span.span_id.hex(),
                            "parent": span.parent_span_id.hex(),
                            "scope": scope.scope.name,
                            "attributes": {each.key: each.value.string_value or each.value.int_value for each in span.attributes},
                        }
                        for span in scope.spans
                    ]
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
