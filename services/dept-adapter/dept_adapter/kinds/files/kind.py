"""Departments that exchange batch files (物理归集): one loop for each, with a breaker and a backoff of its own."""

import time
from collections.abc import Sequence
from datetime import timedelta
from urllib.parse import urlsplit

from chassis.background import Loop
from chassis.breaker import Breaker, BreakerState
from chassis.consumer import ConsumerSpec
from chassis.file_store import FilesUnavailableError, SftpAccess, open_files
from chassis.logs import get_logger
from chassis.parking import RetryPolicy
from chassis.rows import Rows
from contracts.catalogue import Department
from dept_adapter.kinds.files.inbound import Inbound
from dept_adapter.kinds.files.ledger import FileLedger
from dept_adapter.kinds.files.outbound import Outbound
from dept_adapter.kinds.port import Health, Parts
from dept_adapter.push import BREAKER
from dept_adapter.settings import DeptAdapterSettings

log = get_logger(__name__)


class FilesKind:
    """One department of mode files."""

    def __init__(self, department: Department, parts: Parts) -> None:
        settings = parts.settings
        self.department = department
        self.consumers: Sequence[ConsumerSpec] = ()
        self._channels = parts.channels
        self._url = str(settings.department_urls[department.slug])
        self._access = sftp_access(department, settings)
        self._timeout_seconds = settings.files_timeout_seconds
        ledger = FileLedger(parts.runtime.database)
        loop = Loop(
            f"files.{department.slug}",
            self.step,
            settings.files_poll_seconds,
            grace_seconds=settings.files_timeout_seconds + 5,
        )
        self.loops: Sequence[Loop] = [loop]
        self._outbound = Outbound(department, parts, ledger, Rows(loop, parts.runtime.outbox))
        self._inbound = Inbound(department, parts, ledger)
        self._lease = timedelta(seconds=settings.files_lease_seconds)
        self._policy = RetryPolicy(
            settings.push_backoff_base_seconds, settings.push_backoff_max_seconds, max_attempts=0
        )
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_seconds)

    def wake(self) -> None:
        """Batches are made at their times, not one for each review."""

    def health(self) -> Health:
        """Of the store."""
        state = self._breaker.state(time.monotonic())
        BREAKER.labels(self.department.slug).set(state.gauge)
        error = self._breaker.last_error
        told = (
            f"文件交换目录无法访问（{error}），将自动重试；请核对地址、密钥并联系该部门。" if error else None
        )
        return Health(state, told)

    async def step(self) -> bool:
        """Write what is due, take what came; returns whether there may be more."""
        slug = self.department.slug
        if self._breaker.state(time.monotonic()) is BreakerState.OPEN:
            return False
        if not await self._channels.hold(slug, self._lease):
            return False
        try:
            async with open_files(self._url, self._access, timeout_seconds=self._timeout_seconds) as files:
                wrote = await self._outbound.step(files)
                took = await self._inbound.step(files)
        except FilesUnavailableError as error:
            wait = self._policy.delay(self._breaker.failures + 1)
            self._breaker.failed(time.monotonic(), str(error), wait.total_seconds())
            log.warning("file store cannot be reached", department=slug, error=str(error))
            return False
        finally:
            await self._channels.release(slug)
        self._breaker.succeeded()
        return wrote or took


def sftp_access(department: Department, settings: DeptAdapterSettings) -> SftpAccess | None:
    """How to sign in to a department's SFTP server; None for a shared folder."""
    slug = department.slug
    url = urlsplit(str(settings.department_urls[slug]))
    if url.scheme != "sftp":
        return None
    host = url.hostname if url.port in (None, 22) else f"[{url.hostname}]:{url.port}"
    secret, key_file = settings.department_secrets.get(slug), settings.department_key_files.get(slug)
    return SftpAccess(
        f"{host} {settings.department_host_keys[slug]}",
        private_key=key_file.read_text(encoding="utf-8") if key_file else None,
        password=secret.get_secret_value() if secret else None,
    )
