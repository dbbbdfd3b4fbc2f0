"""A mutant: the source with one mechanism taken out, and the tests that must notice.

Each is a TOML file under ``poolkit/`` or ``tiercache/``, called by what is missing in it::

    removes = "the check of the server's answer to COMMIT"      completes "without ..."
    file    = "poolkit/transaction/transaction.py"              under src/
    find    = '''...'''                                         occurs exactly once
    replace = '''...'''
    tests   = ["tests/...::test_b28_..."]                       each of them fails
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
"""Where the mutants are."""


class StaleMutant(ValueError):
    """The source has moved on: the text that the mutant replaces is not there, or not only once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutant:
    """One mechanism less."""

    name: str
    """Its file, below the folder and without the suffix."""
    removes: str
    file: str
    find: str
    replace: str
    tests: tuple[str, ...]
    """Node ids; one without its parameters means all of them, and that some fail."""

    def applied(self, source: str) -> str:
        """Return the source of its file without the mechanism; `StaleMutant` names what is off."""
        found = source.count(self.find)
        if found != 1:
            raise StaleMutant(
                f"mutant {self.name!r}: what it replaces occurs {found} times in src/{self.file}; "
                f"it wants exactly once:\n{self.find}"
            )
        return source.replace(self.find, self.replace)


def load(path: Path, folder: Path = FOLDER) -> Mutant:
    """Read one; ``TypeError`` for a field too many or too few."""
    fields = tomllib.loads(path.read_text())
    name = path.relative_to(folder).with_suffix("").as_posix()
    return Mutant(name=name, **{**fields, "tests": tuple(fields["tests"])})


def load_all(folder: Path = FOLDER) -> list[Mutant]:
    """Read all of them, by name."""
    return [load(path, folder) for path in sorted(folder.glob("*/*.toml"))]
