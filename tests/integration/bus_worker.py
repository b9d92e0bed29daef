"""A process that consumes, relays and watches the bus as a service does, with a Recorder as its handler.

    python bus_worker.py NAME PREFIX SECONDS

NAME: consumer group and database. SECONDS: how long each batch is in hand before its effects are written; a document in ``marks``
says that it is.
"""

import asyncio
import os
import signal
import sys

from integration.recorder import Recorder, harness

from chassis.bus import BusWatch, make_producer
from chassis.relay import Relay
from contracts.topics import RECORDS
from xinfu_local import Stack, broker_from_environment


async def _main(name: str, prefix: str, seconds: float) -> None:
    broker = broker_from_environment(os.environ)
    recorder = Recorder(prefix)
    made = harness(
        Stack([], broker),  # not started: it only reads the addresses from the environment
        broker,
        recorder,
        name,
        kafka_session_timeout_ms=6_000,
        outbox_lease_seconds=2,
        bus_watch_seconds=1,
    )

    async def in_hand() -> None:
        await made.database.collection("marks").insert_one({"pid": os.getpid()})
        await asyncio.sleep(seconds)

    if seconds:
        recorder.before = in_hand
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    watch = BusWatch(made.settings, {RECORDS.name: RECORDS}, made.outbox.has_published)
    await watch.begin()
    relay = Relay(made.database, make_producer(made.settings, name), made.settings)
    await relay.producer.start()
    async with made.running():
        watch.loop.start()
        relay.loop.start()
        await stop.wait()
        await watch.loop.stop()
        await relay.stop()
    await relay.close()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
