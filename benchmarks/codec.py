"""What it takes to write 100 small typed records and read them back, beside pickle.

The codec with its compression and its frame (key, times, digest of the type), as shared tiers store
it; pickle with neither. The processor's time. A pickle executes whatever it is told to; this does
not.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

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


@dataclass
class Record:
    """A small record."""

    id: int
    name: str
    score: float
    active: bool
    created: datetime


def measure(calls: int, rounds: int) -> list[Sample]:
    """Measure all."""
    began = datetime(2026, 1, 1, tzinfo=UTC)
    records = [
        Record(at, f"name {at}", at / 7, at % 2 == 0, began + timedelta(seconds=at))
        for at in range(RECORDS)
    ]
    type_ = list[Record]
    codec, sealer = SafeCodec(), Sealer()
    entry = Entry(records, 0.0, FOREVER, FOREVER)
    if codec.decode(codec.encode(records, type_), type_) != records:
        raise SystemExit("the codec has changed the records")
    again = [None] * calls
    return interleave(
        {
            BASE: loop_of(
                "codec.decode(codec.encode(records, type_), type_)",
                "_",
                again,
                clock=PROCESSOR,
                codec=codec,
                records=records,
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
                "loads(dumps(records, 5))",
                "_",
                again,
                clock=PROCESSOR,
                loads=pickle.loads,
                dumps=pickle.dumps,
                records=records,
            ),
        },
        calls,
        rounds,
    )


def bars(samples: list[Sample]) -> list[Bar]:
    """Hold the results against what is asked."""
    found = {sample.name: sample for sample in samples}
    return [at_most(WORK, 1.0, found[BASE].ratio_to(found[PICKLE]), "of pickle")]


def main() -> None:
    """Measure, print, and save if asked to."""
    arguments = options(__doc__, calls=100, rounds=60)
    results = {WORK: measure(arguments.calls, arguments.rounds)}
    judged = bars(results[WORK])
    show("Codec: median, and as a multiple of the safe codec's", results, BASE)
    show_bars(judged)
    if arguments.json is not None:
        settings = {"calls": arguments.calls, "rounds": arguments.rounds, "records": RECORDS}
        save(arguments.json, "codec", results, BASE, settings, judged)


if __name__ == "__main__":
    main()
