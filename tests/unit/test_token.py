"""Keys come from the environment and go nowhere else; a token is issued once, however many ask for it."""

import asyncio
import multiprocessing
import pickle
from pathlib import Path

import pytest

from pipeline.kis.token import MARGIN_S, Credentials, CredentialsError, Token, TokenCache

KEY, SECRET = "PSabcdefghijklmnopqrstuvwxyz01234567", "s3cret" * 30
GOOD = {"K": KEY, "S": SECRET, "A": "12345678-01"}


class Issuer:
    """Issue numbered tokens, slowly enough that others ask meanwhile."""

    def __init__(self, life: float = 86400, now: float = 0.0) -> None:
        self.issued, self.life, self.now = 0, life, now

    async def __call__(self) -> Token:
        await asyncio.sleep(0.02)
        self.issued += 1
        return Token(f"token-{self.issued}", self.now + self.life)

    def cache(self, folder: Path, host: str = "https://kis") -> TokenCache:
        return TokenCache(folder, host, KEY, self, clock=lambda: self.now)


def test_many_askers_one_issue(tmp_path: Path) -> None:
    issuer = Issuer()

    async def run() -> list[str]:
        cache, other = issuer.cache(tmp_path), issuer.cache(tmp_path)
        return await asyncio.gather(*(c.get() for c in (cache, other) * 10))

    assert set(asyncio.run(run())) == {"token-1"}
    assert issuer.issued == 1


def test_refused_token_is_issued_once_again(tmp_path: Path) -> None:
    issuer = Issuer()

    async def run() -> list[str]:
        cache = issuer.cache(tmp_path)
        first = await cache.get()
        return await asyncio.gather(*(cache.renew(first) for _ in range(20)))

    assert set(asyncio.run(run())) == {"token-2"}
    assert issuer.issued == 2


def test_token_is_given_up_before_it_expires(tmp_path: Path) -> None:
    issuer = Issuer(life=1000)

    async def run() -> list[str]:
        cache = issuer.cache(tmp_path)
        out = [await cache.get()]
        issuer.now = 1000 - MARGIN_S - 1
        out.append(await cache.get())
        issuer.now += 2
        out.append(await cache.get())
        return out

    assert asyncio.run(run()) == ["token-1", "token-1", "token-2"]


def _ask(folder: Path, ready: object, queue: object) -> None:
    class Slow(Issuer):
        async def __call__(self) -> Token:
            await asyncio.sleep(0.3)
            with (folder / "issues.log").open("a") as log:
                log.write("issued\n")
            return Token("the-token", 1e12)

    ready.wait()  # type: ignore[attr-defined]
    queue.put(asyncio.run(Slow().cache(folder).get()))  # type: ignore[attr-defined]


def test_processes_issue_once(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    ready, queue = fork.Barrier(4), fork.Queue()
    workers = [fork.Process(target=_ask, args=(tmp_path, ready, queue)) for _ in range(4)]
    for worker in workers:
        worker.start()
    tokens = {queue.get(timeout=20) for _ in workers}
    for worker in workers:
        worker.join()
    assert tokens == {"the-token"}
    assert (tmp_path / "issues.log").read_text().count("issued") == 1


def test_files_are_private_and_named_without_the_key(tmp_path: Path) -> None:
    folder = tmp_path / "tokens"
    asyncio.run(Issuer().cache(folder).get())
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert KEY not in path.name and KEY not in path.read_text()


def test_an_open_file_is_closed_and_a_broken_one_replaced(tmp_path: Path) -> None:
    issuer = Issuer()
    asyncio.run(issuer.cache(tmp_path).get())
    (path,) = tmp_path.glob("*.token")
    path.chmod(0o644)
    assert asyncio.run(issuer.cache(tmp_path).get()) == "token-1"
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text('{"token": ')
    assert asyncio.run(issuer.cache(tmp_path).get()) == "token-2"


def test_hosts_have_tokens_of_their_own(tmp_path: Path) -> None:
    issuer = Issuer()
    assert asyncio.run(issuer.cache(tmp_path, "https://live").get()) == "token-1"
    assert asyncio.run(issuer.cache(tmp_path, "https://paper").get()) == "token-2"


def test_a_failed_issue_leaves_no_lock(tmp_path: Path) -> None:
    issuer = Issuer()

    async def failing() -> Token:
        raise RuntimeError("the host is away")

    async def run() -> str:
        broken = TokenCache(tmp_path, "https://kis", KEY, failing)
        with pytest.raises(RuntimeError, match="away"):
            await broken.get()
        return await asyncio.wait_for(issuer.cache(tmp_path).get(), 2)

    assert asyncio.run(run()) == "token-1"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"K": ""}, "got no K"),
        ({"S": "  "}, "got no S"),
        ({"K": KEY[:-1]}, "expected 36 characters without blanks in K, got 35"),
        ({"K": KEY[:-1] + "키"}, "36 characters"),
        ({"S": SECRET + "x"}, "expected 180 characters without blanks in S, got 181"),
        ({"A": "1234"}, "8 or 10 digits in A"),
    ],
)
def test_malformed_keys_are_named_but_not_shown(change: dict[str, str], says: str) -> None:
    with pytest.raises(CredentialsError, match=says) as caught:
        Credentials.from_environment("K", "S", "A", {**GOOD, **change})
    for value in {**GOOD, **change}.values():
        assert not value.strip() or value not in str(caught.value)


def test_credentials_show_and_travel_as_nothing() -> None:
    found = Credentials.from_environment("K", "S", "A", GOOD)
    assert (found.key, found.secret, found.account) == (KEY, SECRET, "12345678-01")
    shown = f"{found!r} {found} {Token('the-token', 1.0)!r}"
    assert not any(part in shown for part in (*GOOD.values(), "the-token"))
    with pytest.raises(TypeError, match="stay in the process"):
        pickle.dumps(found)


def further(number: int) -> dict[str, str]:
    return {f"K_{number}": f"PS{number:02d}".ljust(36, "x"), f"S_{number}": SECRET}


def test_further_keys_are_found_by_their_suffix() -> None:
    found = Credentials.all_from_environment("K", "S", "A", GOOD | further(10) | further(2) | {"K_1": "x", "K_x": "y"})
    assert [one.names for one in found] == [("K", "S"), ("K_2", "S_2"), ("K_10", "S_10")]
    assert [one.key[:4] for one in found] == ["PSab", "PS02", "PS10"] and found[1].account == ""
    assert len(Credentials.all_from_environment("K", "S", "A", GOOD | {"K_2": " "})) == 1
    assert KEY not in repr(found) and SECRET not in repr(found)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"S_2": ""}, "got no S_2"),
        ({"K_2": "short"}, "36 characters without blanks in K_2, got 5"),
        ({"K_2": KEY}, "another app key in K_2, got that of K;"),
        ({"K": ""}, "got no K;"),
    ],
)
def test_a_further_key_that_is_wrong_is_named(change: dict[str, str], says: str) -> None:
    with pytest.raises(CredentialsError, match=says) as caught:
        Credentials.all_from_environment("K", "S", "A", GOOD | further(2) | change)
    assert KEY not in str(caught.value) and SECRET not in str(caught.value)


@pytest.mark.parametrize(("life", "after", "held"), [(300, 200, True), (300, 280, False), (86_400, 85_000, True)])
def test_a_token_of_minutes_is_kept_for_most_of_its_life(tmp_path: Path, life: float, after: float, held: bool) -> None:
    now = [1000.0]

    async def issue() -> Token:
        return Token.lasting("young", life, now[0])

    async def run() -> tuple[str, bool]:
        await TokenCache(tmp_path, "https://kis", KEY, issue, clock=lambda: now[0]).get()
        other = TokenCache(tmp_path, "https://kis", KEY, issue, clock=lambda: now[0])
        text = await other.get()
        now[0] += after
        return text, bool(other.held())

    assert asyncio.run(run()) == ("young", held)


@pytest.mark.parametrize(
    "text", ["[]", "null", "7", '"x"', '{"token": 1}', "\x00", '{"token": "t", "expires": "soon"}']
)
def test_a_file_of_anything_else_is_replaced(tmp_path: Path, text: str) -> None:
    issuer = Issuer()
    asyncio.run(issuer.cache(tmp_path).get())
    (path,) = tmp_path.glob("*.token")
    path.write_text(text)
    assert asyncio.run(issuer.cache(tmp_path).get()) == "token-2"
