"""What is explored, and what must break when a mechanism is taken out."""

from __future__ import annotations

from typing import NamedTuple

from tests.coherence.model.rules import Rules, Scenario

A, B, TWICE = (0, 1), (1, 1), (1, 2)
"""Loads: one run in process 0, one in process 1, two in process 1."""

SCENARIOS = {
    "key, crash, rollback, slow relay": Scenario(crash=True, rollback=True, flights=(A, B)),
    "key, joiner, 1 process": Scenario(flights=(A, A), join=True, relays=0),
    "key, 2 writers in 2 processes": Scenario(writers=(0, 1), flights=(A, B), l3=False, relays=0),
    "key, other process reads twice": Scenario(flights=(TWICE,), join=True, crash=True),
    "tag, crash": Scenario(tagged=True, crash=True, flights=(A, B)),
    "tag, another key of it": Scenario(tagged=True, faults={"sibling": 1}, flights=(A,)),
    "tag, tag and slot evicted": Scenario(
        tagged=True, faults={"tag": 2, "evict": 1}, flights=(TWICE,), crash=True, l3=False
    ),
    "tag, 2 writers, tag evicted": Scenario(
        tagged=True, writers=(0, 0), faults={"tag": 1}, flights=(TWICE,), l3=False, relays=0
    ),
    "slot evicted, Redis emptied": Scenario(
        faults={"evict": 1, "flush": 1}, flights=(A, B), l3=False, relays=0
    ),
    "Redis emptied, L3": Scenario(faults={"flush": 1}, flights=(B,), crash=True),
    "failover to lagging replica": Scenario(
        faults={"snapshot": 1}, flights=(TWICE,), l3=False, crash=True
    ),
    "failover, 2 loads": Scenario(faults={"snapshot": 1}, flights=(A, B), l3=False, relays=0),
    "bus cut, gap, replay": Scenario(
        faults={"disconnect": 1, "flush": 1}, flights=(TWICE,), l3=False, relays=0
    ),
    "L2 unreachable": Scenario(faults={"l2": 1}, flights=(A, B)),
    "L3 unreachable": Scenario(faults={"l3": 1}, flights=(TWICE,)),
    "L2 unreachable, bus elsewhere": Scenario(
        faults={"l2": 1}, flights=(A, B), l3=False, relays=0, bus_apart=True
    ),
    "L3 unreachable, 2 writers": Scenario(
        writers=(1, 0), faults={"l3": 1}, flights=((0, 2),), relays=0
    ),
    "row of a stranger, told by a trigger": Scenario(watched=True, flights=(A, B)),
    "unknown outcome": Scenario(unknown=True, rollback=True, flights=(A, B), l3=False),
    "own read in the transaction": Scenario(
        read_inside=True, rollback=True, flights=(B,), l3=False
    ),
    "load on an old snapshot": Scenario(old_snapshot=True, flights=(A, B), l3=False),
    "set() in a transaction, 2 writers": Scenario(
        writers=(0, 1), setting=0, flights=(B,), l3=False, relays=0
    ),
    "strict, crash, rollback, joiners": Scenario(
        strict=True, crash=True, rollback=True, join=True, flights=(A, B)
    ),
    "strict, 2 writers": Scenario(strict=True, writers=(0, 1), crash=True, join=True, flights=(B,)),
    "strict, Redis emptied": Scenario(
        strict=True, crash=True, join=True, rollback=True, faults={"flush": 1}, flights=(TWICE,)
    ),
    "strict, failover": Scenario(
        strict=True, crash=True, join=True, faults={"snapshot": 1}, flights=(TWICE,)
    ),
    "tombstone expiry": Scenario(faults={"tombstone": 1}, flights=(A, B), l3=False, relays=0),
}


class Mutation(NamedTuple):
    """A protocol without one of its parts, and the scenario in which that shows."""

    without: str
    scenario: str
    rules: Rules


MUTATIONS = [
    Mutation(
        "leases: tombstones, their age checked by the client",
        "tombstone expiry",
        Rules(slots="tombstone", age="client"),
    ),
    Mutation(
        "leases: tombstones, their age not checked",
        "tombstone expiry",
        Rules(slots="tombstone", age="nobody"),
    ),
    Mutation(
        "leases: a tombstone is evicted, an epoch key survives",
        "slot evicted, Redis emptied",
        Rules(slots="tombstone"),
    ),
    Mutation("the run, in values", "failover to lagging replica", Rules(run=False)),
    Mutation("the run, in leases", "failover, 2 loads", Rules(run=False)),
    Mutation(
        "L3 before L2",
        "key, crash, rollback, slow relay",
        Rules(order=("L2", "L3", "BUS", "L1")),
    ),
    Mutation(
        "L2 before the bus",
        "key, other process reads twice",
        Rules(order=("L3", "BUS", "L2", "L1")),
    ),
    Mutation(
        "L3 before the bus",
        "key, other process reads twice",
        Rules(order=("BUS", "L3", "L2", "L1")),
    ),
    Mutation(
        "own L1 last",
        "key, crash, rollback, slow relay",
        Rules(order=("L1", "L3", "L2", "BUS")),
    ),
    Mutation(
        "invalidation after the commit",
        "key, 2 writers in 2 processes",
        Rules(before_commit=True),
    ),
    Mutation("compare-and-set in L2", "key, crash, rollback, slow relay", Rules(compare_l2=False)),
    Mutation("compare-and-set in L3", "key, crash, rollback, slow relay", Rules(compare_l3=False)),
    Mutation("void flights", "key, crash, rollback, slow relay", Rules(void=False)),
    Mutation(
        "the token before the loader", "key, crash, rollback, slow relay", Rules(token="after")
    ),
    Mutation(
        "the tag's token before the loader", "tag, another key of it", Rules(tag_token="after")
    ),
    Mutation("random tag tokens", "tag, 2 writers, tag evicted", Rules(tags="counter")),
    Mutation("absence is no token", "tag, tag and slot evicted", Rules(tags="absent")),
    Mutation("the outbox", "key, crash, rollback, slow relay", Rules(outbox=False)),
    Mutation("the outbox: a commit lands late", "unknown outcome", Rules(outbox=False)),
    Mutation("gap detection", "bus cut, gap, replay", Rules(gap=False)),
    Mutation("a gap voids flights", "bus cut, gap, replay", Rules(gap_voids=False)),
    Mutation("bus_timeout", "bus cut, gap, replay", Rules(bus_timeout=False)),
    Mutation("own reads go round what is pending", "L2 unreachable", Rules(bypass=False)),
    Mutation(
        "who hears of an incomplete pass goes round first",
        "L2 unreachable, bus elsewhere",
        Rules(hears="memory first"),
    ),
    Mutation("the whole pass is repeated", "L3 unreachable", Rules(repeat="failed")),
    Mutation("the event of an incomplete pass says so", "L3 unreachable", Rules(bypass=False)),
    Mutation(
        "pending ends with one's own pass",
        "L3 unreachable, 2 writers",
        Rules(settle="heard"),
    ),
    Mutation(
        "the outbox: a trigger's row",
        "row of a stranger, told by a trigger",
        Rules(outbox=False),
    ),
    Mutation(
        "private loads in a writing transaction",
        "own read in the transaction",
        Rules(private_write=False),
    ),
    Mutation(
        "private loads in a reading transaction",
        "load on an old snapshot",
        Rules(private_read=False),
    ),
    Mutation(
        "set() takes its token before the commit",
        "set() in a transaction, 2 writers",
        Rules(set_token="after"),
    ),
    Mutation("strict marks", "strict, crash, rollback, joiners", Rules(marks=False)),
    Mutation(
        "strict marks without a ttl", "strict, crash, rollback, joiners", Rules(marks_expire=True)
    ),
    Mutation(
        "strict marks refuse fills",
        "strict, crash, rollback, joiners",
        Rules(marks_refuse=False),
    ),
    Mutation(
        "strict joiners need a proof",
        "strict, crash, rollback, joiners",
        Rules(joiners_proven=False),
    ),
    Mutation(
        "the horizon of transactions when marks are lost",
        "strict, Redis emptied",
        Rules(horizon=False),
    ),
]
