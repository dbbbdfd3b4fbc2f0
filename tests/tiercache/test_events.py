"""`Event`: what travels on the bus, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiercache.events import Event

texts = st.text(st.characters(), min_size=1)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(
    st.builds(
        Event,
        source=texts,
        keys=st.lists(texts).map(tuple),
        tags=st.lists(texts).map(tuple),
        everything=st.booleans(),
        name=st.none(),
        complete=st.booleans(),
        at=st.integers(0, 2**40).map(float),
        landed=st.lists(texts).map(tuple),
        failed=st.lists(texts).map(tuple),
    )
)
def test_round_trip(event: Event) -> None:
    """An event arrives as it was sent, whatever text is in its keys and tags."""
    assert Event.decode(event.encode()) == event


@given(texts, st.dictionaries(texts, scalars))
def test_round_trip_of_an_application_event(name: str, payload: dict[str, object]) -> None:
    """So does an application event with its payload, types included."""
    event = Event("s", name=name, payload=payload)  # type: ignore[arg-type]
    heard = Event.decode(event.encode())
    assert heard == event
    assert [type(each) for each in heard.payload.values()] == list(map(type, payload.values()))


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    """Bytes of somebody else are refused with ValueError, never with anything else."""
    try:
        Event.decode(data)
    except ValueError:
        pass


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"5",
        b"\xff\xfe",
        b'{"s":"x"}',
        b'{"s":"x","t":"soon"}',
        b'{"s":"x","t":' + b"9" * 400 + b"}",
        b'{"s":"x","t":1,"k":5}',
        b'{"s":"x","t":1,"k":"letters"}',
        b'{"s":"x","t":1,"g":[["nested"]]}',
        b'{"s":"x","t":1,"n":["list"]}',
        b'{"s":"x","t":1,"n":"e","p":["ab"]}',
        b'{"s":"x","t":1,"n":"e","p":{"a":{"b":1}}}',
        b'{"s":"x","t":1,"l":"letters"}',
        b'{"s":"x","t":1,"f":[5]}',
        b'{"s":5,"t":1}',
        b"[" * 100_000,
    ],
    ids=lambda data: repr(data[:30]),
)
def test_hostile_bytes(data: bytes) -> None:
    """What has another shape is refused as a whole."""
    with pytest.raises(ValueError):
        Event.decode(data)


def test_unknown_fields_are_left_alone() -> None:
    """An event of a later version, with a field more, is understood."""
    assert Event.decode(b'{"s":"x","t":1,"k":["a"],"z":[1]}') == Event("x", ("a",), at=1.0)


def test_small() -> None:
    """What is not said costs no bytes."""
    assert Event("ab", keys=("k",), at=1.5).encode() == b'{"s":"ab","t":1.5,"k":["k"]}'
