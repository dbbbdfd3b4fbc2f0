"""Five seconds of the soak that `make soak-pool` runs for minutes."""

from tests.soak.pool import soak


def test_a_short_soak() -> None:
    """Every outcome is as it was told, the law holds, and nothing is left behind."""
    report = soak(5.0, seed=7, tasks=100)
    assert not report.violations, "\n".join([*report.lines, *report.violations[:5]])
    assert any("committed" in line for line in report.lines)
