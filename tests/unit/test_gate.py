"""The simulated gate: no second holds more calls than the quota, tokens follow KIS's rules of issue."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kis.simulator.gate import Approvals, Quota, Refused, Tokens, Window

GAPS = st.lists(st.integers(0, 600).map(lambda gap: gap / 1000), min_size=1, max_size=60)


@given(st.integers(1, 5), GAPS, st.sampled_from(["sliding", "fixed"]))
def test_no_second_holds_more_than_the_quota_and_no_call_is_refused_in_vain(
    calls: int, gaps: list[float], window: Window
) -> None:
    now = [1000.0]
    quota = Quota(calls, window, clock=lambda: now[0])
    admitted: list[float] = []

    def in_second() -> int:
        since = now[0] - 1.0 if window == "sliding" else float(int(now[0]))
        return sum(time > since if window == "sliding" else time >= since for time in admitted)

    for gap in gaps:
        now[0] += gap
        room = in_second() < calls
        assert quota.admit("key") is room
        if room:
            admitted.append(now[0])
        assert in_second() <= calls
    assert quota.admit("another key")


def test_no_quota_is_no_limit() -> None:
    quota = Quota(0)
    assert all(quota.admit("key") for _ in range(10_000))


def code(call: object, *arguments: str) -> str:
    with pytest.raises(Refused) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value.code


def test_one_token_a_minute_the_same_for_six_hours_gone_after_a_day() -> None:
    now = [1_700_000_000.0]
    tokens = Tokens(clock=lambda: now[0])
    first = tokens.issue("key", "secret")
    assert first["expires_in"] == 86_400
    bearer = f"Bearer {first['access_token']}"
    tokens.check(bearer, "key", "secret")
    now[0] += 59
    assert code(tokens.issue, "key", "secret") == "EGW00133"
    assert tokens.issue("another", "secret")["access_token"] != first["access_token"]
    now[0] += 1
    again = tokens.issue("key", "secret")
    assert again["access_token"] == first["access_token"] and again["expires_in"] == 86_340
    now[0] += 6 * 3600
    later = tokens.issue("key", "secret")
    assert later["access_token"] != first["access_token"]
    tokens.check(bearer, "key", "secret")  # the older one lives on
    now[0] += 18 * 3600
    assert code(tokens.check, bearer, "key", "secret") == "EGW00123"
    assert code(tokens.check, "", "key", "secret") == "EGW00122"
    assert code(tokens.check, f"Bearer {later['access_token']}", "another", "secret") == "EGW00103"
    assert code(tokens.check, f"Bearer {later['access_token']}", "key", "wrong") == "EGW00105"
    tokens.revoke(str(later["access_token"]))
    assert code(tokens.check, f"Bearer {later['access_token']}", "key", "secret") == "EGW00121"


def test_approval_keys_last_a_day_and_older_ones_stay_good() -> None:
    now = [1000.0]
    approvals = Approvals(clock=lambda: now[0])
    first = approvals.issue("app")
    now[0] += 3600.0
    second, other = approvals.issue("app"), approvals.issue("other")
    assert len({first, second, other}) == 3
    assert [approvals.owner(key) for key in (first, second, other, "", "none")] == ["app", "app", "other", None, None]
    now[0] += 23 * 3600.0
    assert approvals.owner(first) is None and approvals.owner(second) == "app"
