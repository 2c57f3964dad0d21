"""Random policies, and random edits of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

from model.keys import Kind


@dataclass(frozen=True)
class Scale:
    """How wide the world of one sequence is: rows, clock and dates lie within ``span`` of each other."""

    span: timedelta
    intervals: tuple[str, ...]
    ages: tuple[str, ...]


SCALES = (
    Scale(timedelta(days=1100), ("Month", "Quarter", "Year"), ("6mo", "13mo", "1y", "2y", "200d", "40w")),
    Scale(timedelta(days=40), ("Day", "Week", "Month"), ("36h", "3d", "10d", "2w", "1mo")),
)
# Midnight exists there on every day: the model's own calendar knows no more.
ZONES = ("UTC", "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")


@dataclass
class Policy:
    """``fields`` as in the YAML; ``held`` are the names that the annotation holds."""

    kind: Kind
    scale: Scale
    fields: dict[str, Any] = field(default_factory=dict)
    held: frozenset[str] = frozenset()

    def begin(self, rng: Random, now: datetime) -> str:
        """The first policy: mostly one that makes a past, so that there is something to retire."""
        past = now - self.scale.span * rng.uniform(0.3, 0.8)
        sections = [name for name in ("interval", "retention", "defaultPartition", "timezone") if rng.random() < 0.6]
        chosen = {name: getattr(self, f"_{name.lower()}")(rng, now) for name in sections}
        self.fields = {name: value for name, value in chosen.items() if value is not None}
        self.fields["interval"] = self.fields.get("interval", self.scale.intervals[1])
        if rng.random() < 0.7:
            self.fields["startFrom"] = past.date().isoformat()
        return f"begin with {self.fields}"

    def edit(self, rng: Random, now: datetime, names: list[str]) -> str:
        """Change one field, and return a description. ``names``: of tables that a hold may name."""
        choice = rng.choice(
            [
                "interval",
                "premake",
                "timezone",
                "ensure",
                "startFrom",
                "retention",
                "retention",
                "retention",
                "defaultPartition",
                "defaultPartition",
                "maintenance",
                "mode",
                "hold",
                "thresholds",
            ]
        )
        if choice == "hold":
            self.held = frozenset(rng.sample(names, min(len(names), rng.choice([0, 1, 1, 3]))))
            return f"hold {sorted(self.held)}"
        value = getattr(self, f"_{choice.lower()}")(rng, now)
        if value is None:
            self.fields.pop(choice, None)
        else:
            self.fields[choice] = value
        return f"{choice}: {value}"

    def _interval(self, rng: Random, _: datetime) -> str:
        return rng.choice(self.scale.intervals)

    def _premake(self, rng: Random, _: datetime) -> int:
        return rng.randint(0, 3)

    def _timezone(self, rng: Random, _: datetime) -> str:
        return rng.choice(ZONES)

    def _day(self, rng: Random, now: datetime) -> str:
        return (now + self.scale.span * rng.uniform(-0.7, 0.7)).date().isoformat()

    def _ensure(self, rng: Random, now: datetime) -> list[str]:
        return [self._day(rng, now) for _ in range(rng.randint(0, 3))]

    def _startfrom(self, rng: Random, now: datetime) -> str | None:
        return rng.choice([None, self._day(rng, now - self.scale.span / 3)])

    def _retention(self, rng: Random, _: datetime) -> dict[str, Any] | None:
        keep = {"keepFor": rng.choice(self.scale.ages), "maxRetirements": 10_000}
        grace = {"grace": rng.choice(["0s", "0s", "0s", "1h", "48h"])}
        drop = {"onExpire": "Drop", "dropWithoutArchive": True}
        return rng.choice([None, keep, keep | drop | grace, keep | drop | grace, keep | drop | {"grace": "0s"}])

    def _defaultpartition(self, rng: Random, _: datetime) -> dict[str, Any]:
        return {
            "ensure": rng.random() < 0.5,
            "drain": rng.choice(["Never", "Auto", "Auto"]),
            "drainMaxRows": rng.choice([3, 100_000, 100_000]),
        }

    def _maintenance(self, rng: Random, _: datetime) -> dict[str, Any]:
        found = {"onClose": rng.choice(["None", "Vacuum", "VacuumAndReindex"])}
        return found | rng.choice([{}, {"window": "01:00-13:00"}])

    def _mode(self, rng: Random, _: datetime) -> str:
        return rng.choice(["Apply", "Apply", "Plan"])

    def _thresholds(self, rng: Random, _: datetime) -> dict[str, Any]:
        return rng.choice([{}, {"partitionSize": "10Ki"}])
