from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from datetime import timedelta
from math import inf, nan
from typing import Any, assert_type, cast, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiercache.errors import PolicyError
from tiercache.policy import CachePolicy, Duration, PolicyOptions, Times, parse_duration

DURATIONS: list[tuple[Duration, float]] = [
    (60, 60.0),
    (0.25, 0.25),
    (timedelta(minutes=1, milliseconds=500), 60.5),
    ("250ms", 0.25),
    ("9ms", 0.009),
    ("90s", 90.0),
    ("1.5h", 5400.0),
    ("5m", 300.0),
    ("1h30m", 5400.0),
    ("1h 30m", 5400.0),
    ("2d", 172_800.0),
    ("1w", 604_800.0),
    ("1w2d3h4m5s6ms", 788_645.006),
    ("never", inf),
    (inf, inf),
]

NO_DURATIONS: list[Any] = [
    0,
    0.0,
    -1,
    "0s",
    timedelta(0),
    timedelta(seconds=-1),
    nan,
    -inf,
    True,
    False,
    "",
    " ",
    "60",
    "-5m",
    "5 minutes",
    "5M",
    "30m1h",
    "1h1h",
    "1h,30m",
    "Never",
    "٣s",
    "9" * 400 + "s",
    10**400,
    b"5m",
    [60],
    object(),
]


@pytest.mark.parametrize(("given", "seconds"), DURATIONS)
def test_a_duration_is_read_in_every_form(given: Duration, seconds: float) -> None:
    """Seconds, timedelta and text all become a float of seconds."""
    parsed = parse_duration(given, "ttl")
    assert parsed == seconds
    assert type(parsed) is float


@pytest.mark.parametrize("given", NO_DURATIONS, ids=lambda given: repr(given)[:20])
def test_what_cannot_be_a_duration_is_refused_by_name(given: Any) -> None:
    """The refusal names the field, the value and the accepted forms."""
    with pytest.raises(PolicyError) as caught:
        parse_duration(given, "ttl")
    message = str(caught.value)
    assert message.startswith(f"ttl={given!r} is refused")
    assert '"1h30m"' in message


@given(st.integers(0, 10**9), st.sampled_from(["ms", "s", "m", "h", "d", "w"]))
def test_text_means_what_timedelta_means(amount: int, unit: str) -> None:
    """For every unit the text and the timedelta of the same length give the same seconds."""
    names = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    weeks = unit == "w"
    length = (
        timedelta(weeks=amount % 10**6) if weeks else timedelta(**{names[unit]: amount % 10**6})
    )
    parsed = parse_duration(f"{amount % 10**6}{unit}", "ttl", zero=True)
    assert parsed == pytest.approx(length.total_seconds(), rel=1e-15)


@pytest.mark.parametrize("field", ["ttl", "soft_timeout", "hard_timeout"])
def test_zero_is_no_ttl_and_no_timeout(field: str) -> None:
    """What would switch the cache or the load off is refused."""
    with pytest.raises(PolicyError, match=f"^{field}=0 is refused.*above 0"):
        CachePolicy(**cast("PolicyOptions", {field: 0}))


@pytest.mark.parametrize("field", ["soft_timeout", "hard_timeout"])
def test_a_timeout_is_not_endless(field: str) -> None:
    """No timeout is None; "never" is refused, and the message does not offer it."""
    with pytest.raises(PolicyError, match=f"^{field}='never' is refused") as caught:
        CachePolicy(**cast("PolicyOptions", {field: "never"}))
    assert '"never"' not in str(caught.value)


def test_the_fields_hold_what_was_meant() -> None:
    """After construction every duration is in seconds and the version is text."""
    policy = CachePolicy(
        ttl="1h",
        stale_for=timedelta(minutes=5),
        refresh_ahead=0.8,
        jitter=0,
        soft_timeout="100ms",
        hard_timeout=2,
        version=3,
        copy="deep",
        strict=True,
    )
    assert policy.ttl == 3600.0
    assert policy.stale_for == 300.0
    assert (policy.refresh_ahead, policy.jitter) == (0.8, 0.0)
    assert (policy.soft_timeout, policy.hard_timeout) == (0.1, 2.0)
    assert (policy.version, policy.copy, policy.strict) == ("3", "deep", True)
    assert all(type(value) is float for value in (policy.ttl, policy.jitter, policy.hard_timeout))


def test_the_types_are_wide_on_the_way_in_and_narrow_on_the_way_out() -> None:
    """A type checker lets every form in and sees floats afterwards."""
    assert_type(CachePolicy(ttl="5m").ttl, float | None)
    assert_type(CachePolicy(stale_for=timedelta(1)).stale_for, float)
    assert_type(CachePolicy(version=1).version, str)


def test_none_stays_none() -> None:
    """The default policy has no ttl, no timeouts and no refresh."""
    policy = CachePolicy()
    assert policy.ttl is None
    assert policy.refresh_ahead is None
    assert policy.soft_timeout is None
    assert policy.hard_timeout is None
    assert policy.version == ""


def test_a_policy_is_a_value() -> None:
    """Policies written differently are equal if they mean the same, hash alike and stay as made."""
    assert CachePolicy(ttl="1m") == CachePolicy(ttl=60)
    assert hash(CachePolicy(ttl="1m")) == hash(CachePolicy(ttl=60))
    with pytest.raises(FrozenInstanceError):
        CachePolicy().ttl = 3.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        CachePolicy(60)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stale_for", -1),
        ("stale_for", None),
        ("refresh_ahead", 0),
        ("refresh_ahead", 1),
        ("refresh_ahead", True),
        ("refresh_ahead", nan),
        ("refresh_ahead", "0.5"),
        ("jitter", -0.1),
        ("jitter", 1.0),
        ("jitter", False),
        ("jitter", None),
        ("cache_if", 3),
        ("version", "a b"),
        ("version", "1:2"),
        ("version", "é"),
        ("version", "x" * 65),
        ("version", True),
        ("version", 1.5),
        ("version", None),
        ("copy", "yes"),
        ("copy", None),
        ("copy", ["none"]),
        ("strict", 1),
        ("strict", "no"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(field: str, value: Any) -> None:
    """Each field names itself, the value and what it accepts."""
    with pytest.raises(PolicyError) as caught:
        CachePolicy(**{field: value})
    assert str(caught.value).startswith(f"{field}={value!r} is refused; accepted: ")


async def _async_predicate(value: object) -> bool:
    return value is not None


class _AsyncPredicate:
    async def __call__(self, value: object) -> bool:
        return value is not None


@pytest.mark.parametrize("predicate", [_async_predicate, _AsyncPredicate()])
def test_an_async_predicate_is_refused(predicate: Any) -> None:
    """A coroutine is always true, so it would say yes to everything."""
    with pytest.raises(PolicyError, match=r"cache_if=.*not async"):
        CachePolicy(cache_if=predicate)


def test_a_soft_timeout_comes_before_the_hard_one() -> None:
    """A soft timeout that never comes first is refused, wherever the two come from."""
    with pytest.raises(PolicyError, match=r"soft_timeout=2\.0 .*hard_timeout=2\.0"):
        CachePolicy(soft_timeout=2, hard_timeout="2s")
    with pytest.raises(PolicyError, match="soft_timeout"):
        CachePolicy(soft_timeout=1).merged(hard_timeout=0.5)


@pytest.mark.parametrize("option", [{"stale_for": 1}, {"refresh_ahead": 0.5}, {"jitter": 0.1}])
def test_what_never_expires_has_nothing_to_refresh_or_to_be_stale(option: Any) -> None:
    """Beside ttl="never" these options could do nothing, so they are refused."""
    with pytest.raises(PolicyError, match='beside ttl="never"'):
        CachePolicy(ttl="never", **option)


@pytest.mark.parametrize("option", [{"stale_for": 1}, {"refresh_ahead": 0.5}, {"jitter": 0.1}])
def test_an_option_may_wait_for_its_ttl_in_a_default_but_not_in_a_function(option: Any) -> None:
    """The policy of a cache may lack the ttl its functions bring; a function may not."""
    waiting = CachePolicy(**option)
    assert waiting.merged(ttl=60).ttl == 60.0
    assert waiting.merged(strict=True).strict
    with pytest.raises(PolicyError, match="a ttl beside it"):
        CachePolicy().merged(**option)


def test_a_soft_timeout_needs_something_stale_to_serve() -> None:
    """It may wait in a default; asked for by a function without stale_for it is refused."""
    waiting = CachePolicy(ttl=60, soft_timeout=0.1)
    assert waiting.merged(stale_for=60).soft_timeout == 0.1
    assert waiting.merged(ttl=30).soft_timeout == 0.1
    assert waiting.merged(soft_timeout=0.2, stale_for=60).soft_timeout == 0.2
    with pytest.raises(PolicyError, match=r"soft_timeout=0\.2 .*stale_for"):
        waiting.merged(soft_timeout=0.2)


def test_merging_replaces_what_was_named_and_keeps_the_rest() -> None:
    """Overrides are read like constructor arguments; everything else is inherited."""
    policy = CachePolicy(ttl="5m", stale_for="1m", jitter=0.1, version=2)
    merged = policy.merged(ttl="10s", version="b", strict=True)
    assert merged == CachePolicy(ttl=10, stale_for=60, jitter=0.1, version="b", strict=True)


def test_merging_without_a_ttl_keeps_the_ttl() -> None:
    """ttl=None means the ttl of the policy, and merging nothing gives the policy itself."""
    policy = CachePolicy(ttl="5m")
    assert policy.merged(ttl=None, strict=True).ttl == 300.0
    assert policy.merged() is policy
    assert policy.merged(ttl=None) is policy


def test_none_switches_an_inherited_option_off() -> None:
    """For options other than ttl None is a value: no refresh, no timeout."""
    policy = CachePolicy(ttl=60, refresh_ahead=0.5, hard_timeout=1)
    merged = policy.merged(refresh_ahead=None, hard_timeout=None)
    assert merged == CachePolicy(ttl=60)


def test_a_ttl_of_never_drops_what_it_makes_meaningless() -> None:
    """Inherited options about expiry end with ttl="never"; those asked for with it are refused."""
    policy = CachePolicy(ttl=60, refresh_ahead=0.5, jitter=0.1, stale_for=5, soft_timeout=1)
    assert policy.merged(ttl="never") == CachePolicy(ttl="never", soft_timeout=1)
    with pytest.raises(PolicyError, match="refresh_ahead"):
        policy.merged(ttl="never", refresh_ahead=0.5)


def test_an_unknown_option_is_refused_with_the_nearest_known_one() -> None:
    """The refusal lists the options and suggests the one that was probably meant."""
    misspelt: Any = {"refresh_ahed": 0.5}
    with pytest.raises(PolicyError, match=r"'refresh_ahed'.*stale_for.*mean refresh_ahead\?"):
        CachePolicy().merged(**misspelt)
    with pytest.raises(PolicyError, match="there is no option 'zzz'") as caught:
        CachePolicy.check(zzz=1)  # type: ignore[call-arg]
    assert "did you mean" not in str(caught.value)


def test_options_can_be_checked_before_it_is_known_what_they_merge_with() -> None:
    """check refuses impossible values and lets pass what only waits for a companion."""
    CachePolicy.check(refresh_ahead=0.5, soft_timeout=1)
    with pytest.raises(PolicyError, match="jitter=2"):
        CachePolicy.check(jitter=2)


def test_the_typed_options_are_those_of_the_policy() -> None:
    """The names that decorators accept are the fields of the policy, except ttl."""
    assert PolicyOptions.__optional_keys__ == {field.name for field in fields(CachePolicy)} - {
        "ttl"
    }
    assert set(get_type_hints(CachePolicy)) == {field.name for field in fields(CachePolicy)}


def test_the_times_of_a_value_follow_from_when_its_load_began() -> None:
    """Refresh, expiry and the end of staleness come in this order after the start."""
    policy = CachePolicy(ttl=100, stale_for=50, refresh_ahead=0.8)
    assert policy.times(1000.0, 0.0) == Times(1000.0, 1080.0, 1100.0, 1150.0)


def test_luck_shortens_the_ttl_by_at_most_the_jitter() -> None:
    """Without luck the ttl is whole; the refresh moves with the expiry."""
    policy = CachePolicy(ttl=100, jitter=0.2, refresh_ahead=0.5)
    assert policy.times(0.0, 0.0).expires == 100.0
    assert policy.times(0.0, 0.5) == Times(0.0, 45.0, 90.0, 90.0)


@pytest.mark.parametrize("policy", [CachePolicy(), CachePolicy(ttl="never")])
def test_without_a_ttl_nothing_ever_happens(policy: CachePolicy) -> None:
    """A value without expiry is never refreshed and never stale."""
    assert policy.times(5.0, 0.9) == Times(5.0, inf, inf, inf)


def test_a_default_that_waits_for_a_ttl_makes_no_strange_times() -> None:
    """Options without a ttl leave the times infinite instead of producing NaN."""
    policy = CachePolicy(refresh_ahead=0.5, stale_for="never", jitter=0.5)
    assert policy.times(5.0, 0.9) == Times(5.0, inf, inf, inf)


def test_a_promoted_entry_is_refreshed_by_its_own_times() -> None:
    """The refresh time of an entry from a lower tier follows from its creation and expiry."""
    assert CachePolicy(ttl=1, refresh_ahead=0.75).refresh_at(100.0, 200.0) == 175.0
    assert CachePolicy(refresh_ahead=0.75).refresh_at(100.0, inf) == inf
    assert CachePolicy(ttl=1).refresh_at(100.0, 200.0) == inf


@given(
    ttl=st.floats(1e-3, 1e8),
    stale_for=st.floats(0, 1e8),
    refresh_ahead=st.none() | st.floats(0.01, 0.99),
    jitter=st.floats(0, 0.99),
    now=st.floats(0, 1e6),
    luck=st.floats(0, 1, exclude_max=True),
)
def test_times_are_always_in_order(
    ttl: float,
    stale_for: float,
    refresh_ahead: float | None,
    jitter: float,
    now: float,
    luck: float,
) -> None:
    """Whatever the policy, creation comes before refresh and expiry, and expiry before the end."""
    policy = CachePolicy(ttl=ttl, stale_for=stale_for, refresh_ahead=refresh_ahead, jitter=jitter)
    times = policy.times(now, luck)
    assert times.created == now
    assert now <= times.expires <= times.stale_until
    assert now <= times.refresh_at
    assert refresh_ahead is None or times.refresh_at <= times.expires
    assert times.expires <= now + ttl
