"""The promise of the limiter: no second with more starts than allowed, by one key and by several, at any schedule."""

import asyncio
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kis.keys import AppKey, Keys
from pipeline.kis.limiter import MARGIN_S, SPREAD, Limiter
from pipeline.kis.token import Credentials, Token, TokenCache
from storage.emit import silent
from tests.starts import FakeTime, most_in_a_window

GAPS = st.lists(st.sampled_from([0.0, 0.0, 0.001, 0.3, 0.9999, 1.0, 2.5]), min_size=1, max_size=120)
LATE = st.lists(st.floats(0, 0.4), max_size=5)


@given(
    rate=st.one_of(st.integers(1, 40).map(float), st.floats(0.2, 30)),
    gaps=GAPS,
    late=LATE,
    refused=st.sets(st.integers(0, 119), max_size=6),
)
@settings(max_examples=150, deadline=None)
def test_no_second_holds_more_starts_than_allowed(
    rate: float, gaps: list[float], late: list[float], refused: set[int]
) -> None:
    fake = FakeTime(late)
    limiter = Limiter(rate, clock=fake.clock, sleep=fake.sleep)

    async def run() -> list[float]:
        starts = []
        for i, gap in enumerate(gaps):
            fake.now += gap
            starts.append(await limiter.start())
            (limiter.rejected if i in refused else limiter.accepted)()
        return starts

    starts = asyncio.run(run())
    assert most_in_a_window(starts) <= max(1, int(rate))
    if rate < 1:
        assert all(b - a >= 1 / rate for a, b in pairwise(starts))


def with_token(number: int, rate: float, fake: FakeTime, folder: Path) -> AppKey:
    async def issue() -> Token:
        return Token(f"token-{number}", 1e12)

    found = Credentials(f"key-{number}", "secret", names=(f"K_{number}", f"S_{number}"))
    limiter = Limiter(rate, clock=fake.clock, sleep=fake.sleep)
    return AppKey(found, TokenCache(folder, "https://kis", found.key, issue), limiter)


@given(
    rates=st.lists(st.integers(1, 25), min_size=1, max_size=4),
    batches=st.lists(st.tuples(st.sampled_from([0.0, 0.01, 0.5, 1.0, 1.7]), st.integers(1, 30)), max_size=6),
    late=LATE,
    refused=st.sets(st.integers(0, 99), max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_each_of_several_keys_keeps_its_own_limit(
    tmp_path_factory: pytest.TempPathFactory,
    rates: list[int],
    batches: list[tuple[float, int]],
    late: list[float],
    refused: set[int],
) -> None:
    fake, folder = FakeTime(late), tmp_path_factory.getbasetemp() / "property-tokens"
    starts: dict[str, list[float]] = {}
    order: list[int] = []

    async def run() -> None:
        keys = Keys([with_token(n, rate, fake, folder) for n, rate in enumerate(rates)], silent, sleep=fake.sleep)

        async def call(number: int) -> None:
            key, token = await keys.start()
            assert token == key.credentials.key.replace("key", "token")
            starts.setdefault(key.credentials.key, []).append(fake.now)
            order.append(number)
            assert key.limiter is not None
            (key.limiter.rejected if number in refused else key.limiter.accepted)()

        for gap, size in batches:
            fake.now += gap
            await asyncio.gather(*(call(len(order) + n) for n in range(size)))
        await keys.close()

    asyncio.run(run())
    assert order == sorted(order), "calls start in the order of asking"
    for number, rate in enumerate(rates):
        assert most_in_a_window(starts.get(f"key-{number}", [0.0])) <= rate


@given(count=st.integers(1, 4), rate=st.integers(4, 20), calls=st.integers(40, 160))
@settings(max_examples=25, deadline=None)
def test_several_keys_make_as_many_calls_as_all_their_limits_together(
    tmp_path_factory: pytest.TempPathFactory, count: int, rate: int, calls: int
) -> None:
    fake, folder = FakeTime([]), tmp_path_factory.getbasetemp() / "property-tokens"
    used: Counter[str] = Counter()

    async def run() -> None:
        keys = Keys([with_token(n, rate, fake, folder) for n in range(count)], silent, sleep=fake.sleep)
        for _ in range(calls):
            used[(await keys.start())[0].credentials.key] += 1
        await keys.close()

    asyncio.run(run())
    share = -(-calls // count)
    assert fake.now - 1000.0 <= ((share - 1) // rate + SPREAD) * (1 + MARGIN_S) + 1e-6
    assert max(used.values()) - min(used[f"key-{n}"] for n in range(count)) <= max(1, rate // 16) + 1, "all used alike"
