"""/livez, /readyz, /metrics and the documentation pages of every service."""

import asyncio
from collections.abc import Collection

from aiokafka import AIOKafkaProducer
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from chassis.pages import pages_router

_CHECK_SECONDS = 3.0


def health_router(stalled_after_seconds: float) -> APIRouter:
    """Routes that say whether the process lives and whether it can do its work."""
    router = APIRouter(include_in_schema=False)

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        """The event loop turns."""
        return {"status": "ok"}

    @router.get("/readyz")
    async def readyz(request: Request) -> JSONResponse:
        """Bus and database answer, all topics are there, and every consumer makes progress."""
        runtime = request.app.state.runtime

        async def check(work: "asyncio.Future[object]") -> str:
            try:
                await asyncio.wait_for(work, _CHECK_SECONDS)
            except Exception as error:
                return f"{type(error).__name__}: {error}"[:300]
            return "ok"

        database, bus = await asyncio.gather(
            check(asyncio.ensure_future(runtime.database.ping())),
            check(asyncio.ensure_future(_bus_answers(runtime.relay.producer, runtime.topics))),
        )
        stalled = {
            c.spec.name: round(seconds)
            for c in runtime.consumers
            if (seconds := c.stalled_seconds()) > stalled_after_seconds
        }
        checks = {
            "database": database,
            "bus": bus,
            "progress": f"no progress for seconds: {stalled}" if stalled else "ok",
        }
        ready = all(value == "ok" for value in checks.values())
        return JSONResponse(
            {"status": "ok" if ready else "unavailable", "checks": checks}, 200 if ready else 503
        )

    @router.get("/metrics")
    async def metrics(request: Request) -> Response:
        """Prometheus text format."""
        for consumer in request.app.state.runtime.consumers:
            consumer.lag()
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    router.include_router(pages_router())
    return router


async def _bus_answers(producer: AIOKafkaProducer, topics: Collection[str]) -> None:
    metadata = await producer.client.fetch_all_metadata()
    if not metadata.brokers():
        raise ConnectionError("no Kafka broker answers")
    if missing := sorted(set(topics) - metadata.topics()):
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ConnectionError(f"topics are missing on the bus: {', '.join(missing[:3])}{more}")
