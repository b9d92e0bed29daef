"""The trace store: an OTLP/HTTP sink that keeps the newest spans, to be read by an attribute's value."""

import asyncio
import json
import zlib
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from contracts.errors import ProblemCode
from sandbox.db import Database, Row
from sandbox.problems import Problem

SCHEMA = """
CREATE TABLE IF NOT EXISTS span (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, trace_id TEXT NOT NULL, span_id TEXT NOT NULL, parent_span_id TEXT,
  name TEXT NOT NULL, service_name TEXT NOT NULL, kind TEXT NOT NULL,
  start_unix_nano INTEGER NOT NULL, end_unix_nano INTEGER NOT NULL,
  status TEXT NOT NULL, status_message TEXT NOT NULL, attributes TEXT NOT NULL, links TEXT NOT NULL,
  UNIQUE (trace_id, span_id)
);
CREATE TABLE IF NOT EXISTS span_attribute (seq INTEGER NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, trace_id TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS span_attribute_value ON span_attribute (key, value, trace_id);
CREATE INDEX IF NOT EXISTS span_attribute_seq ON span_attribute (seq);
CREATE TABLE IF NOT EXISTS span_link (seq INTEGER NOT NULL, source TEXT NOT NULL, target TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS span_link_source ON span_link (source, target);
CREATE INDEX IF NOT EXISTS span_link_target ON span_link (target, source);
CREATE INDEX IF NOT EXISTS span_link_seq ON span_link (seq);
"""

KEPT_SPANS = 200_000
INDEXED_PREFIX = "xinfu."
MAX_UNPACKED_BYTES = 64_000_000
_PROTOBUF = "application/x-protobuf"

# Breadth first (SQLite takes rows of a recursive query in order), so that the limit keeps the nearest traces.
_TRACES = """
WITH RECURSIVE found (trace_id) AS (
  SELECT DISTINCT trace_id FROM span_attribute WHERE key = :key AND value = :value
  UNION
  SELECT near.trace_id FROM found JOIN (
    SELECT source AS origin, target AS trace_id FROM span_link UNION ALL SELECT target, source FROM span_link
  ) AS near ON near.origin = found.trace_id
  LIMIT :traces
)
SELECT * FROM span WHERE trace_id IN (SELECT trace_id FROM found) ORDER BY start_unix_nano LIMIT :spans
"""


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    if kind == "bytes_value":
        return value.bytes_value.hex()
    return getattr(value, kind)


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _row(span: Span, service_name: str) -> Row:
    links = [
        {
            "trace_id": link.trace_id.hex(),
            "span_id": link.span_id.hex(),
            "attributes": _attributes(link.attributes),
        }
        for link in span.links
    ]
    return {
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_span_id": span.parent_span_id.hex() or None,
        "name": span.name,
        "service_name": service_name,
        "kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        "start_unix_nano": span.start_time_unix_nano,
        "end_unix_nano": span.end_time_unix_nano,
        "status": Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_").lower(),
        "status_message": span.status.message,
        "attributes": _attributes(span.attributes),
        "links": links,
    }


def _rows(body: bytes) -> list[Row]:
    export = ExportTraceServiceRequest.FromString(body)
    return [
        _row(span, str(_attributes(resource.resource.attributes).get("service.name", "")))
        for resource in export.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _store(db: Database, spans: list[Row]) -> None:
    with db.transaction() as connection:
        for span in spans:
            stored = connection.execute(
                "INSERT OR IGNORE INTO span (trace_id, span_id, parent_span_id, name, service_name, kind,"
                " start_unix_nano, end_unix_nano, status, status_message, attributes, links) VALUES (:trace_id,"
                " :span_id, :parent_span_id, :name, :service_name, :kind, :start_unix_nano, :end_unix_nano,"
                " :status, :status_message, :attributes, :links)",
                {
                    **span,
                    "attributes": json.dumps(span["attributes"], ensure_ascii=False),
                    "links": json.dumps(span["links"], ensure_ascii=False),
                },
            )
            if not stored.rowcount:  # an exporter's retry
                continue
            seq = stored.lastrowid
            for key, value in span["attributes"].items():
                if key.startswith(INDEXED_PREFIX):
                    connection.executemany(
                        "INSERT INTO span_attribute VALUES (?, ?, ?, ?)",
                        [
                            (seq, key, str(each), span["trace_id"])
                            for each in (value if isinstance(value, list) else [value])
                        ],
                    )
            connection.executemany(
                "INSERT INTO span_link VALUES (?, ?, ?)",
                [
                    (seq, span["trace_id"], link["trace_id"])
                    for link in span["links"]
                    if link["trace_id"] != span["trace_id"]
                ],
            )
        newest = connection.execute("SELECT max(seq) AS newest FROM span").fetchone()["newest"]
        if newest and newest > KEPT_SPANS:
            for table in ("span", "span_attribute", "span_link"):
                connection.execute(f"DELETE FROM {table} WHERE seq <= ?", (newest - KEPT_SPANS,))  # noqa: S608


def _unpacked(body: bytes, encoding: str) -> bytes:
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise Problem(415, ProblemCode.VALIDATION, f"content-encoding {encoding}: send gzip or none")
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(body, MAX_UNPACKED_BYTES)
    except zlib.error as error:
        raise Problem(400, ProblemCode.VALIDATION, f"the body is not gzip: {error}") from None
    if unpacker.unconsumed_tail:
        raise Problem(413, ProblemCode.TOO_LARGE, f"more than {MAX_UNPACKED_BYTES} bytes unpacked")
    if not unpacker.eof:
        raise Problem(400, ProblemCode.VALIDATION, "the gzip body is cut short")
    return unpacked


def _take(db: Database, body: bytes, encoding: str) -> None:
    try:
        spans = _rows(_unpacked(body, encoding))
    except DecodeError as error:
        raise Problem(400, ProblemCode.VALIDATION, f"no ExportTraceServiceRequest: {error}") from None
    _store(db, spans)


def router(db: Database) -> APIRouter:
    """Endpoints under /otlp."""
    db.create(SCHEMA)
    api = APIRouter(prefix="/otlp", tags=["telemetry"])

    @api.post("/v1/traces")
    async def traces_in(request: Request) -> Response:
        if not request.headers.get("content-type", "").startswith(_PROTOBUF):
            raise Problem(415, ProblemCode.VALIDATION, f"send OTLP/HTTP as {_PROTOBUF}, not JSON")
        encoding = request.headers.get("content-encoding", "").lower()
        await asyncio.to_thread(_take, db, await request.body(), encoding)
        return Response(ExportTraceServiceResponse().SerializeToString(), media_type=_PROTOBUF)

    @api.post("/v1/metrics")
    async def metrics_in() -> Response:
        return Response(ExportMetricsServiceResponse().SerializeToString(), media_type=_PROTOBUF)

    @api.post("/v1/logs")
    async def logs_in() -> Response:
        return Response(ExportLogsServiceResponse().SerializeToString(), media_type=_PROTOBUF)

    @api.get("/traces")
    def traces_out(
        attribute: str,
        value: str,
        max_traces: Annotated[int, Query(ge=1, le=5000)] = 200,
        max_spans: Annotated[int, Query(ge=1, le=50_000)] = 10_000,
    ) -> dict[str, Any]:
        if not attribute.startswith(INDEXED_PREFIX):
            raise Problem(
                422, ProblemCode.VALIDATION, f"only attributes that start with {INDEXED_PREFIX} are indexed"
            )
        found = db.rows(_TRACES, {"key": attribute, "value": value, "traces": max_traces, "spans": max_spans})
        spans = [
            {**span, "attributes": json.loads(span["attributes"]), "links": json.loads(span["links"])}
            for span in found
        ]
        return {"truncated": len(spans) == max_spans, "spans": spans}

    return api
