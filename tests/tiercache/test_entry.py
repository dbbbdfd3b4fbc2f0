"""`Slot`, `Mark` and `MISSING`."""

import copy
import pickle

from tiercache import MISSING
from tiercache.entry import FOREVER, SHARING, Mark, Slot


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


def test_a_slot_of_several_functions() -> None:
    """Each finds it by its own alias, named once or twice, and none does when it is retired."""
    one = slot()
    tables: list[dict[object, Slot]] = [{}, {}, {}]
    one.name(tables[0], 0)
    for _ in range(2):
        for number, table in enumerate(tables):
            one.share(table, number)
    assert tables == [{0: one}, {1: one}, {2: one}]
    one.retire()
    assert tables == [{}, {}, {}]
    assert one.table is one.alias is None


def test_a_slot_of_too_many_functions() -> None:
    """Those that were named first forget it, so that what is defined again leaves nothing."""
    one = slot()
    tables: list[dict[object, Slot]] = [{} for _ in range(SHARING + 2)]
    one.name(tables[0], "alias")
    for table in tables[1:]:
        one.share(table, "alias")
    assert [bool(table) for table in tables] == [False] * 2 + [True] * SHARING


def test_retire_leaves_the_aliases_of_others() -> None:
    """A shared slot takes out its own aliases alone."""
    old, new = slot(), slot()
    tables: list[dict[object, Slot]] = [{}, {}]
    old.name(tables[0], "alias")
    old.share(tables[1], "alias")
    new.name(tables[1], "alias")
    old.retire()
    assert tables == [{}, {"alias": new}]
