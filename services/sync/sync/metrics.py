"""Prometheus metrics of sync, on /metrics beside those of the chassis."""

from prometheus_client import Counter, Gauge

PUSHES = Counter(
    "xinfu_sync_pushes_total",
    "Pushed records by the target's answer (applied, received, superseded, rejected, failed)",
    ["target", "result"],
)
READ_BACKS = Counter(
    "xinfu_sync_read_backs_total", "Records read back: seen right, wrong or not at all", ["target", "result"]
)
DRIFTS = Counter("xinfu_sync_drifts_total", "Records that no longer showed what was acknowledged", ["target"])
OLDEST_DIFFERENCE = Gauge(
    "xinfu_sync_oldest_difference_seconds",
    "For how long a target has not shown what was decided; 0 when it shows all",
    ["target"],
)
OVERDUE = Gauge(
    "xinfu_sync_overdue_records",
    "Records a target does not show as decided beyond its time limit (at most 1,000 are counted)",
    ["target"],
)
HEAD_AGE = Gauge(
    "xinfu_sync_history_head_age_seconds", "Age of the last signed head; it rests while nothing grows"
)
UNCOVERED = Gauge(
    "xinfu_sync_history_uncovered_seconds",
    "For how long a chain of the history has grown beyond its last signed head; 0 when all are covered",
)
LETTERS = Gauge(
    "xinfu_sync_letters_waiting",
    "Open letters by what they wait for (release, sending, answer: once it is overdue)",
    ["target", "waits_for"],
)
LETTER_AGE = Gauge(
    "xinfu_sync_oldest_letter_seconds",
    "For how long the oldest of them has waited; 0 when none does",
    ["target", "waits_for"],
)
BREAKER = Gauge("xinfu_target_breaker_state", "0 closed, 1 half-open, 2 open", ["target"])
