"""`Gate`: one number that says whether the hot path may answer."""

from tiercache._gate import Gate
from tiercache.entry import FOREVER


def test_open_at_first() -> None:
    """A gate that nobody has touched lets everything pass, for ever."""
    assert Gate().until == FOREVER


def test_closed_while_anybody_holds_it() -> None:
    """Every hold has to be undone before the gate opens again."""
    gate = Gate()
    gate.hold()
    gate.hold()
    gate.let_go()
    assert gate.until == -FOREVER
    gate.let_go()
    assert gate.until == FOREVER


def test_trust_while_it_is_held() -> None:
    """What the bus says while somebody holds the gate counts from when it is let go."""
    gate = Gate()
    gate.hold()
    gate.trust(5.0)
    assert gate.until == -FOREVER
    assert gate.trusted_until == 5.0
    gate.let_go()
    assert gate.until == 5.0
    gate.trust(7.0)
    assert gate.until == 7.0
