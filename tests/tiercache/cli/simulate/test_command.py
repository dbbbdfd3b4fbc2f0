"""The command that replays a trace: its figures, what it draws, and what it refuses."""

import gzip
import json
from itertools import cycle, islice
from pathlib import Path

import pytest

from tiercache.cli.main import main

LOOP = "\n".join(str(number) for number in islice(cycle(range(30)), 3_000))


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A loop over 30 keys, a hundred times."""
    path = tmp_path / "loop.txt"
    path.write_text(LOOP)
    return path


def figures(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, dict[str, float]]:
    """Run the command with `--json`; what it prints is the object and nothing else."""
    assert main(["simulate", *argv, "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    result: dict[str, dict[str, float]] = json.loads(printed.out)
    return result


def test_json_has_percent_by_policy_and_size(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every request counts: what fits is missed once, and LRU hits nothing of a larger loop."""
    found = figures(capsys, str(trace), "--sizes", "20,30", "--policies", "default,lru,lfu,ttl")
    assert list(found) == ["default", "lru", "lfu", "ttl"]
    assert all(list(by_size) == ["20", "30"] for by_size in found.values())
    assert all(by_size["30"] == 99.0 for by_size in found.values())
    assert found["lru"]["20"] == found["ttl"]["20"] == 0.0
    assert found["default"]["20"] > 40.0


def test_gzip_is_known_by_its_content(
    tmp_path: Path, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A packed trace gives what the plain one does, whatever it is called."""
    packed = tmp_path / "packed.txt"
    packed.write_bytes(gzip.compress(LOOP.encode()))
    options = ["--sizes", "25", "--policies", "lru,lfu"]
    assert figures(capsys, str(packed), *options) == figures(capsys, str(trace), *options)


def test_keys_are_any_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Blanks around a key and empty lines do not count; a key may contain anything else."""
    path = tmp_path / "keys.txt"
    path.write_text("user:1\n\n  user:1\r\nnaïve key\nuser:1\n")
    assert figures(capsys, str(path), "--sizes", "5", "--policies", "lru") == {"lru": {"5": 50.0}}


def test_table_and_curve(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without `--json` a table, and a curve with a mark for each policy."""
    assert main(["simulate", str(trace), "--sizes", "10,1000", "--policies", "lru,default"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "loop.txt: 3,000 requests for 30 keys; hits in per cent"
    assert printed[2].split() == ["size", "10", "1,000"]
    assert printed[3].split() == ["lru", "0.00", "99.00"]
    assert printed[-1] == "* lru  o default"
    assert any("┤" in line and "*" in line for line in printed)
    assert printed[-3].split() == ["10", "1k"]


def test_the_same_size_or_policy_twice_is_once(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was named twice is replayed once, in the order in which it was named first."""
    found = figures(capsys, str(trace), "--sizes", "30,20,30", "--policies", "lru,lru")
    assert {policy: list(by_size) for policy, by_size in found.items()} == {"lru": ["30", "20"]}


@pytest.mark.parametrize("sizes", ["", "0", "-5", "ten", "10,,20", "1e3", "10,0"])
def test_sizes_that_cannot_be_meant(
    sizes: str, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A size is a whole number of 1 or more."""
    with pytest.raises(SystemExit) as exit_:
        main(["simulate", str(trace), f"--sizes={sizes}"])
    assert exit_.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "--sizes" in printed.err


def test_an_unknown_policy(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is shown, beside those there are."""
    with pytest.raises(SystemExit) as exit_:
        main(["simulate", str(trace), "--sizes", "10", "--policies", "lru,arc"])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert "'arc'" in error
    assert "default, lru, lfu, ttl" in error


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        (b"", "empty"),
        (b"\n \n", "empty"),
        (b"\xff\xfe1\n2\n", "UTF-8"),
        (gzip.compress(LOOP.encode())[:-20], "damaged"),
        (gzip.compress(b""), "empty"),
    ],
    ids=["missing", "empty", "blank", "binary", "damaged", "empty-gzip"],
)
def test_a_trace_that_cannot_be_read(
    content: bytes | None, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A message on standard error that names the file, and exit status 2."""
    path = tmp_path / "trace"
    if content is not None:
        path.write_bytes(content)
    assert main(["simulate", str(path), "--sizes", "10", "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert str(path) in printed.err
    assert why in printed.err


def test_a_folder_is_no_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So is anything else that the system does not let us read."""
    assert main(["simulate", str(tmp_path), "--sizes", "10"]) == 2
    assert str(tmp_path) in capsys.readouterr().err
