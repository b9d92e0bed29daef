"""The topic registry: the one place where topics are declared."""

from collections.abc import Iterable
from dataclasses import dataclass

from contracts import events as e
from contracts.events import Event

DAY_MS = 24 * 60 * 60 * 1000


@dataclass(frozen=True)
class Topic:
    """A Kafka topic.

    ``name`` may hold ``{department}``: one topic for each department of the catalogue, so that a slow or broken
    department delays nobody else. ``key`` names the event field used as message key. ``owner``: the service that writes it and
    keeps what it wrote in its outbox. ``consumers``: those of our services that read it; others may too. ``ordered``: events of
    one key take effect in order (a failing key is parked, never overtaken).
    """

    name: str
    key: str
    owner: str
    consumers: tuple[str, ...]
    partitions: int
    retention_ms: int
    ordered: bool
    description: str
    events: tuple[type[Event], ...]

    @property
    def per_department(self) -> bool:
        return "{department}" in self.name


def _topic(
    name: str,
    owner: str,
    description: str,
    *,
    consumers: tuple[str, ...] = (),
    partitions: int = 6,
    retention_days: int = 30,
) -> Topic:
    found = tuple(cls for cls in e.EVENTS.values() if name == cls.TOPIC)
    keys = {cls.KEY for cls in found}
    if len(keys) != 1:
        raise ValueError(f"topic {name}: events of one topic share one key, found {sorted(keys)}")
    return Topic(
        name, keys.pop(), owner, consumers, partitions, retention_days * DAY_MS, True, description, found
    )


RECORDS = _topic(
    "xinfu.records",
    "intake",
    "失信记录的公示与撤回，由部门、平台和 intake 写入",
    consumers=("intake", "sync", "notify"),
)
APPLICATIONS = _topic(
    "xinfu.applications",
    "intake",
    "修复申请的提交、补正、撤回、异议与办结",
    consumers=("routing", "notify"),
)
ROUTING = _topic("xinfu.routing", "routing", "事项与异议的分派结果", consumers=("intake", "notify"))
REVIEWS = _topic(
    "xinfu.reviews.{department}",
    "routing",
    "送各认定单位审核的事项及其补正、撤回、异议, 每个部门一个主题",
    consumers=("dept-adapter",),
    partitions=2,
)
INBOUND = _topic(
    "xinfu.inbound.{department}",
    "dept-adapter",
    "直连 Kafka 的认定单位自己写入的受理与决定，只有这样的单位（mode: events）才有",
    consumers=("dept-adapter",),
    partitions=2,
)
DECISIONS = _topic(
    "xinfu.decisions",
    "dept-adapter",
    "认定单位的受理、补正、延期与决定，以及对异议的决定",
    consumers=("intake", "sync", "notify"),
)
PROPAGATION = _topic(
    "xinfu.propagation", "sync", "各公示平台的确认与核验结果", consumers=("intake", "notify")
)
NOTIFICATIONS = _topic("xinfu.notifications", "notify", "告知结果")
OFFICE_NOTIFICATIONS = _topic(
    "xinfu.office-notifications", "notify", "催办邮件与函告邮件的结果", consumers=("sync",)
)

TOPICS: tuple[Topic, ...] = (
    RECORDS,
    APPLICATIONS,
    ROUTING,
    REVIEWS,
    INBOUND,
    DECISIONS,
    PROPAGATION,
    NOTIFICATIONS,
    OFFICE_NOTIFICATIONS,
)


def review_topic(slug: str) -> str:
    """Name of the review topic of the department with this slug."""
    return REVIEWS.name.format(department=slug)


def inbound_topic(slug: str) -> str:
    """Name of the topic to which the department with this slug, of mode events, writes its decisions."""
    return INBOUND.name.format(department=slug)


def expand(slugs: Iterable[str], inbound: Iterable[str] = ()) -> dict[str, Topic]:
    """Real topic name -> declaration, with one review topic for each department slug, and an inbound one for those of mode events."""
    real = {topic.name: topic for topic in TOPICS if not topic.per_department}
    real |= {review_topic(slug): REVIEWS for slug in slugs}
    return real | {inbound_topic(slug): INBOUND for slug in inbound}


def consumed_by(service: str) -> list[str]:
    """Names of the topics this service consumes, without those of single departments."""
    return [t.name for t in TOPICS if service in t.consumers and not t.per_department]


def topics_of(service: str, slugs: Iterable[str] = (), inbound: Iterable[str] = ()) -> dict[str, Topic]:
    """Of ``expand``, the topics this service owns or consumes."""
    return {
        name: topic
        for name, topic in expand(slugs, inbound).items()
        if service == topic.owner or service in topic.consumers
    }


def declaration(real: str) -> Topic | None:
    """The declaration of a real topic name; None when it is not one of ours."""
    return next(
        (
            topic
            for topic in TOPICS
            if real == topic.name or (topic.per_department and real.startswith(topic.name.partition("{")[0]))
        ),
        None,
    )
