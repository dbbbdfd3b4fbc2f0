"""Progress, the table and the curve."""

import sys

import pytest

from tiercache.cli.simulate.report import curve, progress, table


def test_progress_is_drawn_on_a_terminal_and_wiped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bar goes to standard error, ends at 100 %, and leaves nothing behind."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress(100) as advance:
        advance(50)
        advance(50)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "100%" in printed.err
    assert printed.err.endswith("\r\x1b[K")


def test_no_progress_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    """A log gets no bar."""
    with progress(100) as advance:
        advance(100)
    assert capsys.readouterr().err == ""


def test_nothing_hit_is_drawn_as_well() -> None:
    """A curve of zeros lies on the ground."""
    lines = curve({"lru": {10: 0.0, 20: 0.0}})
    assert lines[-5].count("*") == 2


def test_sizes_are_drawn_in_order_and_listed_as_given() -> None:
    """The curve runs from the smallest size on; the table keeps the order of the user."""
    ratios = {"lru": {2_000: 90.0, 10: 5.0}}
    assert curve(ratios)[-3].split() == ["10", "2k"]
    assert table(ratios)[0].split() == ["size", "2,000", "10"]
