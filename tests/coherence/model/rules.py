"""Which mechanisms are there, and what a scenario allows to happen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Stage = Literal["L3", "L2", "BUS", "L1"]
Fault = Literal[
    "disconnect", "evict", "flush", "l2", "l3", "sibling", "snapshot", "tag", "tombstone"
]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The protocol; the defaults are the one that is built, anything else takes a part out."""

    order: tuple[Stage, ...] = ("L3", "L2", "BUS", "L1")
    before_commit: bool = False
    """Whether the invalidation comes before the commit, and not after it."""
    slots: Literal["lease", "tombstone"] = "lease"
    age: Literal["server", "client", "nobody"] = "server"
    """Who sees that a load is younger than the tombstone (for those alone)."""
    epoch: bool = True
    void: bool = True
    compare_l2: bool = True
    compare_l3: bool = True
    run: bool = True
    """Whether values and leases carry the server's run."""
    tags: Literal["random", "counter", "absent"] = "random"
    token: Literal["before", "after"] = "before"
    tag_token: Literal["before", "after"] = "before"
    set_token: Literal["before", "after"] = "before"
    """Whether each is taken before or after the loader, or the commit."""
    gap: bool = True
    gap_voids: bool = True
    bus_timeout: bool = True
    outbox: bool = True
    repeat: Literal["all", "failed"] = "all"
    bypass: bool = True
    """Whether reads go round the tiers for what is pending."""
    hears: Literal["pending first", "memory first"] = "pending first"
    """What comes first of hearing of an incomplete pass: to go round for it, or to empty L1."""
    settle: Literal["own", "heard"] = "own"
    """Whether pending ends with a pass of one's own alone, or with any complete event too."""
    private_write: bool = True
    private_read: bool = True
    """Whether loads in a transaction fill nothing: in one that writes, in one that only reads."""
    marks: bool = True
    marks_refuse: bool = True
    marks_expire: bool = False
    horizon: bool = True
    joiners_proven: bool = True


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Who is there, and what may happen."""

    writers: tuple[int, ...] = (0,)
    """The process of each; they take the row's lock in this order."""
    flights: tuple[tuple[int, int], ...] = ((0, 1), (1, 2))
    """The process of each load, and how often it may run."""
    tagged: bool = False
    faults: Mapping[Fault, int] = field(default_factory=dict)
    rollback: bool = False
    unknown: bool = False
    crash: bool = False
    join: bool = False
    strict: bool = False
    watched: bool = False
    """Whether the writers know nothing of the cache, and a trigger writes the row."""
    bus_apart: bool = False
    """Whether the bus can be reached while L2 cannot."""
    relays: int = 1
    l3: bool = True
    read_inside: bool = False
    """Whether a writer reads its own row through the cache before it commits."""
    old_snapshot: bool = False
    """Whether the first load runs in a read-only transaction that is older than it."""
    setting: int | None = None
    """The writer that sets the key inside its transaction."""
