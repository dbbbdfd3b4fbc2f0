"""What it takes to write 100 small typed records, or one, and read them back, beside pickle.

The codec with its compression and its frame (key, times, digest of the type), as shared tiers store
it; pickle with neither. The processor's time. A pickle executes whatever it is told to; this does
not.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from _bars import Bar, at_most
from _measure import PROCESSOR, Sample, interleave, loop_of
from _options import options
from _report import save, show, show_bars

from tiercache.codec import Sealer
from tiercache.codec.safe import SafeCodec
from tiercache.entry import FOREVER, Entry

BASE, SEALED, PICKLE = "safe codec", "safe codec, sealed", "pickle"
RECORDS = 100
WORK = f"{RECORDS} records, encode and decode"
ONE = "1 record, encode and decode"


@dataclass
class Record:
    """A small record."""

    id: int
    name: str
    score: float
    active: bool
    created: datetime


@dataclass
class User:
    """A record as functions return them one at a time."""

    id: int
    name: str
    email: str
    roles: list[str]
    active: bool


def many() -> list[Record]:
    """Return records that are kept as columns."""
    began = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        Record(at, f"name {at}", at / 7, at % 2 == 0, began + timedelta(seconds=at))
        for at in range(RECORDS)
    ]


def measure(value: object, type_: Any, calls: int, rounds: int) -> list[Sample]:
    """Measure all with one value."""
    codec, sealer = SafeCodec(), Sealer()
    entry = Entry(value, 0.0, FOREVER, FOREVER)
    if codec.decode(codec.encode(value, type_), type_) != value:
        raise SystemExit("the codec has changed the value")
    again = [None] * calls
    return interleave(
        {
            BASE: loop_of(
                "codec.decode(codec.encode(value, type_), type_)",
                "_",
                again,
                clock=PROCESSOR,
                codec=codec,
                value=value,
                type_=type_,
            ),
            SEALED: loop_of(
                "sealer.open('key', sealer.seal('key', entry, type_), type_)",
                "_",
                again,
                clock=PROCESSOR,
                sealer=sealer,
                entry=entry,
                type_=type_,
            ),
            PICKLE: loop_of(
                "loads(dumps(value, 5))",
                "_",
                again,
                clock=PROCESSOR,
                loads=pickle.loads,
                dumps=pickle.dumps,
                value=value,
            ),
        },
        calls,
        rounds,
    )


def bars(results: dict[str, list[Sample]]) -> list[Bar]:
    """Hold the results against what is asked."""
    judged = []
    for work, samples in results.items():
        found = {sample.name: sample for sample in samples}
        judged.append(at_most(work, 1.0, found[BASE].ratio_to(found[PICKLE]), "of pickle"))
    return judged


def main() -> None:
    """Measure, print, and save if asked to."""
    arguments = options(__doc__, calls=100, rounds=60)
    calls, rounds = arguments.calls, arguments.rounds
    one = User(7, "user 7", "user7@example.org", ["admin", "editor"], True)
    results = {
        WORK: measure(many(), list[Record], calls, rounds),
        ONE: measure(one, User, 10 * calls, rounds),
    }
    judged = bars(results)
    show("Codec: median, and as a multiple of the safe codec's", results, BASE)
    show_bars(judged)
    if arguments.json is not None:
        settings = {"calls": calls, "rounds": rounds, "records": RECORDS}
        save(arguments.json, "codec", results, BASE, settings, judged)


if __name__ == "__main__":
    main()
