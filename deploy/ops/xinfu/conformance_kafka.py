"""The conformance kit towards a system that lives on the bus: writes its reviews topic, reads what it writes. On a TEST bus."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from aiohttp import web
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError
from pydantic import ValidationError

from chassis.inbox import Malformed, Received, receive
from chassis.webhooks import verify
from contracts.catalogue import Department
from contracts.envelope import Envelope
from contracts.events import DecisionReported, Event, ReviewCancelled, ReviewRequested, SupplementForwarded
from contracts.http.department import ReviewSubmission
from contracts.records import DepartmentRef
from contracts.topics import inbound_topic, review_topic
from xinfu.conformance_cases import DECIDED, Ear, Heard, Result, UnfitError, check, common, review, run, until

_MAX_BYTES = 900_000


@dataclass
class KafkaSide:
    """Our side; ``told``: the reviews the system may read over HTTP from our stand-in of dept-adapter."""

    department: Department
    producer: AIOKafkaProducer
    patience_seconds: float
    settle_seconds: float
    secret: str | None
    ear: Ear = field(default_factory=Ear)
    told: dict[str, ReviewSubmission] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    @property
    def ref(self) -> DepartmentRef:
        """The department as events name it."""
        return DepartmentRef(code=self.department.code, slug=self.department.slug, name=self.department.name)

    async def tell(self, review: ReviewSubmission, round_: int = 0) -> str:
        """See Side. The bus answers nothing, so the answer is always the same."""
        self.told[review.item_id] = review
        about = {
            "application_id": review.application_id,
            "item_id": review.item_id,
            "record_id": review.record.record_id,
            "subject_id": review.subject.subject_id,
            "department": self.ref,
        }
        now = datetime.now(UTC)
        event: Event = SupplementForwarded.model_validate({**about, "provided_at": now})
        if review.supplement is None:
            event = ReviewRequested.model_validate(
                {
                    **about,
                    "record": review.record,
                    "accept_due_on": review.accept_due_on,
                    "decide_due_on": review.decide_due_on,
                    "requested_at": now,
                }
            )
        await self.send(event, self.ids.setdefault(f"{review.item_id}:{round_}", secrets.token_hex(16)))
        return ""

    async def cancel(self, review: ReviewSubmission) -> str | None:
        """See Side."""
        event = ReviewCancelled(
            application_id=review.application_id,
            item_id=review.item_id,
            record_id=review.record.record_id,
            subject_id=review.subject.subject_id,
            department=self.ref,
            requested_at=datetime.now(UTC),
        )
        await self.send(event, secrets.token_hex(16))
        return None

    async def send(self, event: Event, event_id: str) -> None:
        """As routing sends it."""
        envelope = Envelope(event_id, event.TYPE, "/xinfu/routing", event.key, datetime.now(UTC))
        trace = {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"}
        await self.raw(event.key, event.model_dump_json().encode(), envelope.headers(trace))

    async def raw(self, key: str, value: bytes, headers: dict[str, str]) -> None:
        """Anything, into the department's reviews topic."""
        encoded = [(name, text.encode()) for name, text in headers.items()]
        await self.producer.send_and_wait(
            review_topic(self.department.slug), value, key=key.encode(), headers=encoded
        )

    def hear(self, record: ConsumerRecord) -> None:
        """A message of the inbound topic, read as dept-adapter reads it."""
        match receive(record, _MAX_BYTES):
            case Received(event=DecisionReported() as event) as received:
                own = event.department == self.ref
                problem = None if own else f"department 应为 {self.ref.model_dump()}"
                self.ear.hear(event.item_id, Heard(event, received.identity, problem))
            case Malformed(detail=detail):
                try:
                    item_id = str(json.loads(record.value)["item_id"])
                    said = DecisionReported.model_validate_json(record.value)
                except (ValueError, KeyError, TypeError, ValidationError):
                    return
                self.ear.hear(item_id, Heard(said, "", f"消息不合要求，会成为死信：{detail}"))
            case _:
                return

    async def show(self, request: web.Request) -> web.Response:
        """A review over HTTP, as dept-adapter shows it to the department."""
        try:
            if self.secret is not None:
                verify(self.secret, request.headers, b"")
        except ValueError as error:
            return web.json_response({"detail": str(error)}, status=401)
        found = self.told.get(request.match_info["item_id"])
        if found is None:
            return web.json_response({"detail": "unknown item"}, status=404)
        return web.Response(text=found.model_dump_json(), content_type="application/json")


async def conform(side: KafkaSide) -> Sequence[Result]:
    """All cases of a system that lives on the bus."""

    async def goes_on() -> str:
        await side.raw(secrets.token_hex(8), b"{", {"ce_specversion": "1.0", "ce_id": secrets.token_hex(8)})
        envelope = Envelope(
            secrets.token_hex(8), "cn.xinfu.coffee.brewed.v1", "/xinfu/routing", "x", datetime.now(UTC)
        )
        await side.raw("x", b'{"cups": 1}', envelope.headers({}))
        asked = review(side, "准予")
        await side.tell(asked)
        await until(side, asked.item_id, DECIDED)
        return check(side, asked.item_id, None)

    async def tells_apart() -> str:
        asked = review(side, "准予")
        await side.tell(asked)
        await until(side, asked.item_id, DECIDED)
        ids = [heard.message_id for heard in side.ear.heard[asked.item_id]]
        said = [heard.said.outcome for heard in side.ear.heard[asked.item_id]]
        if len(set(said)) > len(set(ids)):
            raise UnfitError("两次不同的告知用了同一 ce_source 与 ce_id，后一次不会生效")
        return f"{len(set(ids))} 个事件，各有自己的 ce_id"

    own = asyncio.gather(
        run("unknown-type", "不认识和读不懂的消息", "跳过，照常办理后面的事项", goes_on),
        run("event-id", "事件编号", "每次告知各用一个 ce_id，重发时不变", tells_apart),
    )
    return [*await common(side), *await own]


@asynccontextmanager
async def kafka_side(
    department: Department,
    bootstrap_servers: str,
    *,
    secret: str | None,
    serve_port: int | None,
    patience_seconds: float,
    settle_seconds: float,
) -> AsyncIterator[KafkaSide]:
    """Our side on the bus at ``bootstrap_servers``; ``serve_port``: where we show reviews as dept-adapter does, None: nowhere."""
    topic = inbound_topic(department.slug)
    await _create(bootstrap_servers, [topic, review_topic(department.slug)])
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap_servers, auto_offset_reset="latest", group_id=None
    )
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all")
    side = KafkaSide(department, producer, patience_seconds, settle_seconds, secret)
    runner = None
    if serve_port is not None:
        app = web.Application()
        app.router.add_get(f"/v1/departments/{department.code}/reviews/{{item_id}}", side.show)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", serve_port).start()

    async def listen() -> None:
        async for record in consumer:
            side.hear(record)

    await consumer.start()
    await producer.start()
    await consumer.seek_to_end()
    listening = asyncio.create_task(listen())
    try:
        yield side
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await asyncio.gather(consumer.stop(), producer.stop(), return_exceptions=True)
        if runner is not None:
            await runner.cleanup()


async def _create(bootstrap_servers: str, topics: Sequence[str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        missing = [name for name in topics if name not in set(await admin.list_topics())]
        if missing:
            await admin.create_topics([NewTopic(name, 2, 1) for name in missing])
    except TopicAlreadyExistsError:
        pass
    finally:
        await admin.close()
