"""Prometheus metrics every service exposes on /metrics. Names follow Prometheus' naming rules; durations are seconds."""

from prometheus_client import Counter, Gauge, Histogram

EVENTS_PROCESSED = Counter("xinfu_events_processed_total", "Events that took effect", ["consumer", "type"])
EVENTS_DUPLICATE = Counter(
    "xinfu_events_duplicate_total", "Redelivered events without a second effect", ["consumer", "topic"]
)
EVENTS_SKIPPED = Counter(
    "xinfu_events_skipped_total", "Events of a type this version does not know", ["consumer", "topic", "type"]
)
EVENTS_DEAD = Counter("xinfu_events_dead_total", "Messages put aside as dead letters", ["consumer", "reason"])
EVENTS_PARKED = Counter("xinfu_events_parked_total", "Events parked with their failing key", ["consumer"])
DEAD_LETTER_BYTES = Gauge("xinfu_dead_letter_bytes", "Bytes of stored dead letters, of all replicas")
PARKED_EVENTS = Gauge("xinfu_parked_events", "Events parked now", ["consumer"])
PARKED_KEYS = Gauge("xinfu_parked_keys", "Keys parked now", ["consumer", "state"])
BATCH_SECONDS = Histogram("xinfu_batch_seconds", "Time of one batch, commit included", ["consumer"])
BATCH_EVENTS = Histogram(
    "xinfu_batch_events",
    "Events in one batch",
    ["consumer"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
BATCH_FALLBACKS = Counter(
    "xinfu_batch_fallbacks_total", "Batches divided to find the failing events", ["consumer"]
)
BATCH_RETRIES = Counter(
    "xinfu_batch_retries_total",
    "Batches given back to Kafka after a failure (usually: the database is unavailable)",
    ["consumer"],
)
CALENDAR_MISSING_YEAR = Gauge(
    "xinfu_calendar_missing_year",
    "The first year whose working days are not known: deadlines in it are provisional",
)
CONSUMER_LAG = Gauge("xinfu_consumer_lag_events", "Events behind the end of the topic", ["consumer"])
OUTBOX_PUBLISHED = Counter("xinfu_outbox_published_total", "Events published from the outbox", ["topic"])
OUTBOX_PENDING = Gauge("xinfu_outbox_pending", "Events waiting in the outbox (at most 10,000 are counted)")
OUTBOX_SECONDS = Histogram("xinfu_outbox_wait_seconds", "Time from commit to acknowledged publish")
OUTBOX_ERRORS = Counter(
    "xinfu_outbox_errors_total", "Failed publishes; the event stays in the outbox", ["topic"]
)
BACKGROUND_FAILURES = Counter(
    "xinfu_background_failures_total", "Steps of background loops that failed and are tried again", ["loop"]
)
REQUESTS_AT_WORK = Gauge("xinfu_http_requests_at_work", "HTTP requests at work, open event streams left out")
REQUESTS_REFUSED = Counter(
    "xinfu_http_requests_refused_total", "HTTP requests answered 429 because too many were at work"
)
TOPICS_RECREATED = Counter(
    "xinfu_bus_topics_recreated_total", "Topics that were lost by the bus and created again"
)
