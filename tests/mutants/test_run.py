"""The mutants themselves: they fit the present source, and a survivor is seen."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.mutant import Mutant, StaleMutant, load_all
from tests.mutants.run import ROOT, main, run

MUTANTS = load_all()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_fits_the_source(mutant: Mutant) -> None:
    """What is replaced stands in the source exactly once, and what comes out is still Python."""
    source = (ROOT / "src" / mutant.file).read_text()
    compile(mutant.applied(source), mutant.file, "exec")
    assert mutant.removes
    assert mutant.tests


def test_the_tests_exist() -> None:
    """Every test that is named is one that pytest finds."""
    named = {test for mutant in MUTANTS for test in mutant.tests}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"),
            *sorted({test.partition("::")[0] for test in named}),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    found = set(done.stdout.splitlines())
    found |= {test.partition("[")[0] for test in found}
    assert not named - found, done.stdout[-2000:]


def _project(root: Path) -> None:
    """Write a project whose test knows one half of what its code does."""
    (root / "src" / "halves").mkdir(parents=True)
    (root / "src" / "halves" / "__init__.py").write_text("left = 1\nright = 2\n")
    (root / "test_halves.py").write_text(
        "import halves\n\n\ndef test_left():\n    assert halves.left == 1\n"
        "\n\ndef test_right():\n    assert halves.right\n"
    )
    (root / "pytest.ini").write_text("[pytest]\n")


def _mutant(name: str, find: str, *tests: str) -> Mutant:
    return Mutant(
        name=name,
        removes="a half",
        file="halves/__init__.py",
        find=find,
        replace=find.replace("1", "0").replace("2", "3"),
        tests=tests,
    )


def test_verdicts(tmp_path: Path) -> None:
    """Caught, survived, stale and broken are told apart, and nothing else is touched."""
    _project(tmp_path)
    left, right = "test_halves.py::test_left", "test_halves.py::test_right"
    results = run(
        [
            _mutant("caught", "left = 1", left),
            _mutant("survived", "right = 2", left, right),
            _mutant("stale", "middle = 1", left),
            _mutant("broken", "left = 1", "test_halves.py::test_middle"),
        ],
        tmp_path,
    )
    verdicts = {result.name: result.verdict for result in results}
    assert verdicts == {
        "caught": "caught",
        "survived": "survived",
        "stale": "stale",
        "broken": "broken",
        "(untouched)": "broken",
    }
    details = {result.name: result.detail for result in results}
    assert left in details["survived"]
    assert right in details["survived"]
    assert "'stale'" in details["stale"]
    assert "middle = 1" in details["stale"]
    assert "test_middle" in details["broken"]
    assert (tmp_path / "src" / "halves" / "__init__.py").read_text() == "left = 1\nright = 2\n"


def test_one_that_is_there_twice_is_stale() -> None:
    """A text that stands in the source more than once names no mechanism."""
    with pytest.raises(StaleMutant, match="'twice'.*2 times"):
        _mutant("twice", "x", "t").applied("x x")


def test_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    """Choosing what does not exist is a mistake, not a success."""
    with pytest.raises(SystemExit) as caught:
        main(["--only", "no such mechanism"])
    assert caught.value.code == 2
    assert "no such mechanism" in capsys.readouterr().err
