"""Spans of a batch: every delivery goes on in the trace of its own decision."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode, set_span_in_context, use_span

from chassis.telemetry import links, remote_context, trace_headers, tracer
from sync.desired import Record
from sync.domain import Action, Delivery, Failure


@contextlib.contextmanager
def delivery_spans(action: Action, batch: Sequence[tuple[Delivery, Record]]) -> Iterator[Mapping[str, Span]]:
    """A span for each delivery (by delivery id), in the trace stored with it.

    The HTTP request made inside is a child of the only delivery's span; of several, it belongs to a span of the batch, which is
    linked to all of theirs.
    """
    spans = {
        delivery.id: tracer.start_span(
            f"{action} {delivery.target_id}",
            remote_context(delivery.trace),
            attributes={
                "xinfu.record_id": record.record_id,
                "xinfu.target_id": delivery.target_id,
                "xinfu.application_id": record.application_id or "",
                "xinfu.item_id": record.item_id or "",
                "xinfu.version": record.version,
            },
        )
        for delivery, record in batch
    }
    try:
        if len(batch) == 1:
            with use_span(spans[batch[0][0].id]):
                yield spans
        else:
            with tracer.start_as_current_span(
                f"{action} batch {batch[0][0].target_id}",
                Context(),
                links=links([span.get_span_context() for span in spans.values()]),
            ):
                yield spans
    finally:
        for span in spans.values():
            span.end()


def note_failure(span: Span, failure: Failure) -> None:
    """Mark a delivery's span as failed."""
    span.set_status(Status(StatusCode.ERROR, failure.reason))


def headers_of(span: Span) -> dict[str, str]:
    """Trace headers for what comes of a delivery."""
    return trace_headers(set_span_in_context(span, Context()))
