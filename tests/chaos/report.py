"""What a run found, for people, for other programs, and as a row of docs/chaos.md."""

from dataclasses import dataclass, field

COLUMNS = (
    "seed",
    "submitted",
    "ended",
    "waiting",
    "faults",
    "targets right",
    "duplicates suppressed",
    "parked",
    "dead",
    "wall s",
    "drain s",
    "verdict",
)


@dataclass
class Result:
    """What a run found. Times in seconds; ``faults``, ``again`` (requests repeated, by reason) and ``waiting`` are counts."""

    seed: int
    minutes: float
    applications: int
    sabotage: str | None
    servers_only: bool = False
    submitted: int = 0
    terminal: int = 0
    waiting: dict[str, int] = field(default_factory=dict)
    converged: dict[str, tuple[int, int]] = field(default_factory=dict)
    effects: int = 0
    duplicates: dict[str, int] = field(default_factory=dict)
    parked: int = 0
    dead: int = 0
    again: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    wall_seconds: float = 0
    drain_seconds: float = 0
    drained: bool = False
    broken: dict[str, int] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Nothing is broken, and everything could be checked."""
        return self.drained and not self.broken and not self.unchecked

    def row(self) -> str:
        """The row of docs/chaos.md."""
        cells = [
            self.seed,
            f"{self.submitted:,}",
            f"{self.terminal:,}",
            sum(self.waiting.values()),
            sum(self.faults.values()),
            f"{sum(right for right, _ in self.converged.values()):,} / {sum(of for _, of in self.converged.values()):,}",
            f"{sum(self.duplicates.values()):,}",
            self.parked,
            self.dead,
            f"{self.wall_seconds:.0f}",
            f"{self.drain_seconds:.0f}",
            "ok" if self.holds else "BROKEN: " + ", ".join([*self.broken, *self.unchecked]),
        ]
        return "| " + " | ".join(map(str, cells)) + " |"
