"""The committed baseline: ratios against the rivals, which say something on any machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "baseline.json"
_TIMES = (" ms", " µs of processor time")
"""How bars end that are no ratios, but times of one machine."""
SLOWER = 1.1
"""What is worse than the baseline by this factor is named."""

Documents = Mapping[str, Mapping[str, Any]]


def entries(documents: Documents) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield what can be compared, by name."""
    for name, document in documents.items():
        for bar in document.get("bars", ()):
            if not bar["asked"].endswith(_TIMES):
                yield f"{name}: {bar['work']}, {bar['asked']}", bar


def write(documents: Documents) -> None:
    """Make these results the baseline; benchmarks that were not run keep theirs."""
    found = json.loads(FILE.read_text()) if FILE.exists() else {}
    kept = {key: value for key, value in found.items() if key.partition(":")[0] not in documents}
    kept |= {key: bar["measured"] for key, bar in entries(documents)}
    FILE.write_text(json.dumps(dict(sorted(kept.items())), indent=1, ensure_ascii=False) + "\n")


def slower(documents: Documents) -> list[tuple[str, float, float]]:
    """Return what got worse: its name, the baseline's figure, and the one that was measured."""
    baseline = json.loads(FILE.read_text()) if FILE.exists() else {}
    found = []
    for key, bar in entries(documents):
        before, now = baseline.get(key), bar["measured"]
        if before is None:
            continue
        if (now * SLOWER < before) if bar["at_least"] else (now > before * SLOWER):
            found.append((key, before, now))
    return found
