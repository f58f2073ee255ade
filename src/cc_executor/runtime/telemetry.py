"""Runs and lists as OpenTelemetry spans, where whoever runs this process has set a tracer provider up. Knows OpenTelemetry's API; folds nothing itself.

A run's spans are made once, after its receipt is sealed, from what was recorded, with the recorded times: nothing is done while it streams. Who makes them is
whoever sealed the receipt; and of a run that was launched where spans are wanted, whoever comes first to its end and can. A file in the run's folder says that
it was done. Without a provider nothing happens here, and nothing is imported.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer

    from cc_executor.model.receipt import Receipt
    from cc_executor.model.spans import Span, Value
    from cc_executor.policy.redact import Redactor
    from cc_executor.store.journal import RunFolder

logger = logging.getLogger(__name__)

MARK: Final = "trace.json"  # in a run's folder: it was launched where spans are wanted, and within which
TOLD: Final = "spans"  # in a run's folder: its spans were made
THREAD: Final = "cc_executor spans"
VARIABLES: Final = ("TRACEPARENT", "TRACESTATE")  # opentelemetry.io/docs/specs/otel/context/env-carriers/; Claude Code reads them, too
CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
EXPORTER: Final = "OTEL_TRACES_EXPORTER"
_ON_SPANS: Final = frozenset({"true", "1", "span_only", "span_and_event"})
_API: Final = "opentelemetry.trace"
_PROVIDER: Final = "OTEL_PYTHON_TRACER_PROVIDER"
_SCHEMA: Final = "https://opentelemetry.io/schemas/1.41.0"
_MARK_LIMIT: Final = 4096  # bytes
_JOURNAL_LIMIT: Final = 256 * 2**20  # bytes of output; of a longer run only its own span is made
_PROVIDERS: Final = {"claude": "anthropic"}  # of the agents that ask a model
_CLOUDS: Final = {"CLAUDE_CODE_USE_BEDROCK": "aws.bedrock", "CLAUDE_CODE_USE_VERTEX": "gcp.vertex_ai"}

Ended = Callable[[Mapping[str, "Value"], str], None]


def _tracer() -> Tracer | None:
    """Where spans go; None if nobody has set that up."""
    if _API not in sys.modules and _PROVIDER not in os.environ:
        return None
    try:
        from opentelemetry import trace

        provider = trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
            return None
        from cc_executor import __version__

        return provider.get_tracer("cc_executor", __version__, schema_url=_SCHEMA)
    except ImportError:  # its variable is set, and it is not installed
        return None
    except Exception:  # somebody else's set-up: a run does not suffer from it
        logger.warning("OpenTelemetry cannot be used", exc_info=True)
        return None


def configure(environ: Mapping[str, str]) -> None:
    """Set the SDK up as the standard variables say, in a process of ours that nobody else can set up: where `OTEL_TRACES_EXPORTER` names an exporter."""
    names = [name for name in environ.get(EXPORTER, "").replace(" ", "").split(",") if name not in {"", "none"}]
    if not names or _tracer() is not None:
        return
    import importlib.metadata

    try:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = TracerProvider()
        protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
        for name in names:
            chosen = ("otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http") if name == "otlp" else name
            [point] = importlib.metadata.entry_points(group="opentelemetry_traces_exporter", name=chosen)
            provider.add_span_processor(BatchSpanProcessor(point.load()()))
        trace.set_tracer_provider(provider)
    except Exception:  # not installed, or not to be reached; what the process is there for goes on
        logger.warning("OpenTelemetry cannot be set up as %s says", EXPORTER, exc_info=True)


# --- what a run is within ---------------------------------------------------------------------------------------------


def carried(environ: Mapping[str, str]) -> dict[str, str]:
    """The trace that goes on here, as environment variables; what the environment has where none does. Empty where nobody wants spans."""
    if _tracer() is None:
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    found: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(found)
    return {name.upper(): value for name, value in found.items()} or {name: environ[name] for name in VARIABLES if name in environ}


def is_traced(environ: Mapping[str, str]) -> bool:
    """Whether a span of this process goes on here, so that what is started here finds another one in its environment than what is started later."""
    return any(environ.get(name) != value for name, value in carried(environ).items())


def _context(variables: Mapping[str, str]) -> Context:
    """The other way round; a context without a span where they say nothing."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {name.lower(): value for name, value in variables.items()}
    return TraceContextTextMapPropagator().extract(carrier, context=Context())


def join(headers: Mapping[str, str]) -> None:
    """Let what follows in this task be part of the trace that a request's headers name, unless it is part of one already."""
    if "traceparent" not in headers or _tracer() is None:
        return
    from opentelemetry import context, trace

    if not trace.get_current_span().get_span_context().is_valid:
        context.attach(_context({name: headers[name] for name in ("traceparent", "tracestate") if name in headers}))


@contextmanager
def within(variables: Mapping[str, str]) -> Generator[None]:
    """What is done here is part of the trace of `carried`, and of no other."""
    if _tracer() is None:
        yield
        return
    from opentelemetry import context

    token = context.attach(_context(variables))
    try:
        yield
    finally:
        context.detach(token)


def mark(folder: RunFolder, variables: Mapping[str, str]) -> None:
    """Write down that spans are wanted of a run that is about to start, if they are, and the trace of `carried`."""
    if _tracer() is not None:
        with _harmless():  # or a full disk: who seals the run tells of it, if he can
            folder.write_new(MARK, json.dumps(dict(variables)).encode())


# --- what goes on -----------------------------------------------------------------------------------------------------


@contextmanager
def spanning(name: str, attributes: Mapping[str, Value], *, environ: Mapping[str, str]) -> Generator[Ended]:
    """A span for what is done inside. Gives what is called at its end, with further attributes and the class of what went wrong (empty: nothing)."""
    tracer = _tracer()
    if tracer is None:
        yield lambda _, __: None
        return
    from opentelemetry import context, trace

    from cc_executor.model.spans import ERROR

    def ended(more: Mapping[str, Value], error: str) -> None:
        span.set_attributes({**more, **({ERROR: error} if error else {})})
        if error:
            span.set_status(trace.Status(trace.StatusCode.ERROR))

    span = trace.INVALID_SPAN
    tokens: list[Token[Context]] = []
    with _harmless():
        above = None if trace.get_current_span().get_span_context().is_valid else _context(carried(environ))
        span = tracer.start_span(name, above, attributes=dict(attributes))
        tokens.append(context.attach(trace.set_span_in_context(span)))
    try:
        yield ended
    except BaseException as error:
        ended({}, type(error).__name__)
        raise
    finally:
        for token in tokens:
            context.detach(token)
        with _harmless():
            span.end()


@contextmanager
def _harmless() -> Generator[None]:
    """What is traced suffers from no trouble in tracing: processors of others are called right here when a span begins or ends."""
    try:
        yield
    except Exception:  # whatever a stranger's processor raises: the run goes on
        logger.warning("a span could not be made", exc_info=True)


# --- what was ---------------------------------------------------------------------------------------------------------


def tell_soon(folder: RunFolder, receipt: Receipt, *, environ: Mapping[str, str], redactor: Redactor, is_new: bool) -> None:
    """Make the spans of a run whose receipt is sealed, on a thread of its own, if it is for us to do. Never fails.

    Not a daemon, though the thread that seals is one and would hand that down, so that a program that ends here has made them before its provider is shut down.

    Parameters
    ----------
    is_new : bool
        Whether there was no receipt yet when this process came to the run's end.
    """
    tracer = _tracer()
    if tracer is None or not (is_new or (folder.path / MARK).exists()) or (folder.path / TOLD).exists():
        return
    chosen = dict(environ)
    with suppress(RuntimeError):  # the interpreter ends, and the provider with it
        threading.Thread(target=_tell, args=(tracer, folder, receipt, chosen, redactor), name=THREAD, daemon=False).start()


def _tell(tracer: Tracer, folder: RunFolder, receipt: Receipt, environ: Mapping[str, str], redactor: Redactor) -> None:
    try:
        with suppress(FileExistsError):
            os.close(os.open(folder.path / TOLD, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            _emit(tracer, spans_of(folder, receipt, environ=environ, redactor=redactor), _context(_marked(folder)))
    except Exception:  # root of a thread: the run has ended and its receipt is sealed, whatever becomes of its spans
        if not sys.is_finalizing():
            logger.warning("the spans of run %s could not be made", receipt.run_id, exc_info=True)


def spans_of(folder: RunFolder, receipt: Receipt, *, environ: Mapping[str, str], redactor: Redactor) -> list[Span]:
    """What is told of a run. Blocking: reads its journal.

    Raises
    ------
    StateUnusable
    """
    from cc_executor.model.spans import run_spans
    from cc_executor.runtime.plan import Plan
    from cc_executor.runtime.report import TimedReader
    from cc_executor.shim import records

    provider = _PROVIDERS.get(receipt.agent, "")
    if provider:
        given = Plan.of(folder).env_names
        provider = next((cloud for name, cloud in _CLOUDS.items() if name in given), provider)
    is_short = folder.size(records.STDOUT) <= _JOURNAL_LIMIT
    return run_spans(
        receipt,
        folder.request(),
        TimedReader(folder, agent=receipt.agent).timed() if is_short else (),
        provider=provider,
        mask=redactor.text,
        has_content=environ.get(CAPTURE, "").strip().lower() in _ON_SPANS,
    )


def _marked(folder: RunFolder) -> dict[str, str]:
    from cc_executor.store.plain import read_plain

    try:
        found: Any = json.loads(read_plain(folder.path / MARK, _MARK_LIMIT))
        return {name: str(found[name]) for name in VARIABLES if name in found}
    except (OSError, ValueError, TypeError):  # none, or damaged: then it is a trace of its own
        return {}


def _emit(tracer: Tracer, spans: list[Span], above: Context) -> None:
    from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

    from cc_executor.model.spans import ERROR

    contexts: dict[int, Context] = {}
    for span in spans:
        context = above if span is spans[0] else contexts.get(id(span.parent), contexts[id(spans[0])])
        attributes = {name: _encodable(value) for name, value in (span.attributes | ({ERROR: span.error} if span.error else {})).items()}
        kind = SpanKind.CLIENT if span.is_client else SpanKind.INTERNAL
        made = tracer.start_span(_encodable(span.name), context, kind, attributes, start_time=int(span.start * 1e9))
        if span.error:
            made.set_status(Status(StatusCode.ERROR))
        contexts[id(span)] = set_span_in_context(made, above)
        made.end(int(max(span.start, span.end) * 1e9))


def _encodable(value: Any) -> Any:
    """A text that can be written as UTF-8: one that cannot would cost the exporter its whole batch."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
