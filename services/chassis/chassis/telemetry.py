"""OpenTelemetry: set-up by the standard environment variables, and W3C Trace Context as plain headers.

Spans are exported over OTLP/HTTP when ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or the traces variant) is set; otherwise nothing is
recorded, yet an incoming trace context is still carried on.
"""

import os
from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

TRACE_HEADERS = ("traceparent", "tracestate")
_PROPAGATOR = TraceContextTextMapPropagator()

tracer = trace.get_tracer("xinfu.chassis")


def recording() -> bool:
    """Whether spans of this process go anywhere; if not, hot loops make none and only carry the context on."""
    return isinstance(trace.get_tracer_provider(), TracerProvider)


def configure_telemetry(service: str) -> None:
    """Install the exporter for this process; ``service`` becomes ``service.name`` unless OTEL_SERVICE_NAME says otherwise."""
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    configured = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or not any(map(os.environ.get, configured)):
        return
    name = os.environ.get("OTEL_SERVICE_NAME", service)
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def shutdown_telemetry() -> None:
    """Export what is still buffered."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.shutdown()


def trace_headers(context: Context | None = None) -> dict[str, str]:
    """traceparent and tracestate of ``context`` (default: the current one); empty when there is none."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, context)
    return carrier


def remote_context(headers: Mapping[str, str]) -> Context:
    """The context described by traceparent and tracestate headers; an empty one when they are missing or wrong."""
    return _PROPAGATOR.extract({k: v for k, v in headers.items() if k in TRACE_HEADERS}, Context())


def span_context(headers: Mapping[str, str]) -> SpanContext:
    """The span context described by trace headers (invalid when there is none)."""
    return trace.get_current_span(remote_context(headers)).get_span_context()


def links(contexts: list[SpanContext]) -> list[Link]:
    """One link for each distinct valid context."""
    return [Link(c) for c in {(c.trace_id, c.span_id): c for c in contexts if c.is_valid}.values()]
