"""What one trial is made of; it travels to the worker processes as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Literal, Self

Database = Literal["postgres", "sqlite"]
BusKind = Literal["redis", "postgres", "sqlite"]
KEYS = 12

SCHEMA = (
    "CREATE TABLE item (k bigint PRIMARY KEY, version bigint NOT NULL)",
    "CREATE TABLE history (k bigint NOT NULL, version bigint NOT NULL)",
    *(f"INSERT INTO item VALUES ({key}, 0)" for key in range(KEYS)),
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The tiers and the bus of the caches, the database they are about, and where all that is."""

    database: Database = "postgres"
    l1: bool = True
    l2: bool = True
    l3: bool = False
    bus: BusKind | None = "redis"
    """One in a database is in that of the rows."""
    processes: int = 3
    strict: bool = False
    """Whether there are strict keys, too."""
    bus_timeout: float = 1.0
    deaths: bool = True
    """Whether writers kill themselves between the commit and the invalidation."""
    idle: bool = False
    """Whether nobody does anything but for one writer, and nothing goes wrong: to measure."""
    rests: bool = True
    """Whether to wait at the end until everything has come to rest, and look again."""
    without: str | None = None
    """The mechanism that is taken out, to see whether the judge notices (`sabotage`)."""
    redis: str = ""
    dsn: str = ""
    folder: str = ""
    seed: int = 1

    @property
    def name(self) -> str:
        """What it is called in a report."""
        tiers = "+".join(
            name
            for name, there in (
                ("L1", self.l1),
                ("L2 Redis", self.l2),
                (f"L3 {_TITLES[self.database]}", self.l3),
            )
            if there
        )
        bus = "no bus" if self.bus is None else f"bus {_TITLES[self.bus]}"
        strict = ", strict keys" if self.strict else ""
        return f"{tiers}, {bus}, rows in {_TITLES[self.database]}{strict}"

    def at(self, **places: object) -> Self:
        """Return the plan with other fields."""
        return replace(self, **places)  # type: ignore[arg-type]

    def dump(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `dump` wrote."""
        return cls(**json.loads(text))


_TITLES = {"postgres": "PostgreSQL", "sqlite": "SQLite", "redis": "Redis"}
