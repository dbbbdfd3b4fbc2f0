"""`Slot`, `Mark` and `MISSING`."""

import copy
import pickle

from tiercache import MISSING
from tiercache.entry import FOREVER, Mark, Slot


def slot(**options: object) -> Slot:
    """Return a slot of key "k"."""
    times = {"created": 0.0, "refresh_at": 8.0, "expires": 10.0, "stale_until": 20.0}
    return Slot("k", "value", **(times | options))  # type: ignore[arg-type]


def test_missing_is_one_thing() -> None:
    """`MISSING` is false, says its name, and stays itself through copies and pickles."""
    assert not MISSING
    assert repr(MISSING) == str(MISSING) == "MISSING"
    assert copy.deepcopy(MISSING) is MISSING
    assert pickle.loads(pickle.dumps(MISSING)) is MISSING


def test_served_until_the_earlier_of_refresh_and_expiry() -> None:
    """The hot path serves a slot until it is to be refreshed or expires, whichever comes first."""
    assert slot().serve_until == 8.0
    assert slot(refresh_at=FOREVER).serve_until == 10.0


def test_one_void_mark_voids() -> None:
    """A slot is void as soon as one of its tags is."""
    marks = (Mark(), Mark())
    one = slot(tags=("a", "b"), marks=marks)
    assert not one.void
    marks[1].void = True
    assert one.void


def test_retire() -> None:
    """A retired slot is unreadable at any time, and its alias is gone from the table."""
    one = slot()
    table: dict[object, Slot] = {}
    one.name(table, "alias")
    assert table == {"alias": one}
    one.retire()
    assert one.serve_until == one.expires == one.stale_until == -FOREVER
    assert table == {}
    assert one.alias is None
    one.retire()


def test_retire_leaves_the_alias_of_another() -> None:
    """Retiring a slot leaves an alias that names another slot by now."""
    old, new = slot(), slot()
    table: dict[object, Slot] = {}
    old.name(table, "alias")
    new.name(table, "alias")
    old.retire()
    assert table == {"alias": new}
