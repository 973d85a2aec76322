"""Every kind of answer that the broker is known to give has one meaning."""

from collections.abc import Callable
from urllib.parse import quote, quote_plus

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.kis.errors import KisError, Mask, advice, judge
from pipeline.kis.layouts import MESSAGES
from pipeline.kis.section import KisSection, SimulatorSection


def envelope(code: str, rt_cd: str = "1") -> bytes:
    return orjson.dumps({"rt_cd": rt_cd, "msg_cd": code, "msg1": " text "})


@pytest.mark.parametrize(
    ("status", "content", "verdict"),
    [
        (200, envelope("MCA00000", "0"), "page"),
        (200, envelope("KIOK0500", "0"), "page"),
        (200, envelope("KIOK0560", "0"), "page"),
        (200, envelope("KIER2620", "7"), "page"),
        (200, b'{"access_token":"x","expires_in":86400}', "page"),
        (500, envelope("EGW00201"), "slower"),
        (200, envelope("EGW00201"), "slower"),
        (500, envelope("EGW00215"), "slower"),
        (500, envelope("EGW00123"), "token"),
        (200, envelope("EGW00123"), "token"),
        (500, envelope("EGW00121"), "token"),
        (403, b'{"error_code":"EGW00133","error_description":"1"}', "wait"),
        (403, b'{"error_code":"EGW00103","error_description":"1"}', "error"),
        (500, envelope("EGW00002"), "again"),
        (500, envelope("EGW00213"), "error"),
        (200, envelope("OPSQ2001", "2"), "error"),
        (500, b"<html><body>500</body></html>", "again"),
        (200, b"<html><body>maintenance</body></html>", "again"),
        (502, b"", "again"),
        (200, b'{"rt_cd":"0","msg_cd":"MCA0', "again"),
        (200, b"[]", "again"),
        (503, b'{"message":"x"}', "again"),
        (404, b"Not Found", "error"),
        (429, b"", "again"),
        (307, b"{}", "error"),
    ],
)
def test_verdicts(status: int, content: bytes, verdict: str) -> None:
    found, code, _, body = judge(status, content, Mask())
    assert found == verdict
    assert bool(body) == (verdict == "page")
    assert code or found == "page"


@given(status=st.integers(200, 599), content=st.one_of(st.binary(max_size=60), st.text(max_size=30).map(str.encode)))
def test_any_bytes_have_a_verdict(status: int, content: bytes) -> None:
    assert judge(status, content, Mask())[0] in ("page", "again", "slower", "token", "wait", "error")


def test_every_known_code_has_one_meaning() -> None:
    for code, (rt_cd, status, text) in MESSAGES.items():
        body = orjson.dumps({"rt_cd": rt_cd, "msg_cd": code, "msg1": text})
        assert judge(status, body, Mask())[0] in ("page", "slower", "token", "wait", "again", "error")


def test_advice_names_the_variable_and_the_error_says_everything() -> None:
    assert "LIVE_KEY" in advice("EGW00103", "LIVE_KEY", "LIVE_SECRET") and "LIVE_SECRET" in advice(
        "EGW00105", "a", "LIVE_SECRET"
    )
    text = str(KisError("EGW00103", "a refusal", "the request for a token at https://kis", "check the key"))
    assert (
        text == "expected an answer to the request for a token at https://kis, got a refusal [EGW00103]; check the key"
    )


def test_auto_is_settled_when_the_configuration_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIVE_KIS_APP_KEY", raising=False)
    assert KisSection().environment == "simulator" and KisSection().embedded
    assert KisSection(environment="paper").rate == 1.0
    assert KisSection(simulator=SimulatorSection(quota=50)).rate == 50.0
    monkeypatch.setenv("LIVE_KIS_APP_KEY", "PS" + "x" * 34)
    assert KisSection().environment == "live" and KisSection().rate == 18.0
    assert KisSection(environment="simulator").environment == "simulator"
    assert KisSection(calls_per_second=0).rate == 0.0


def test_what_a_key_holds() -> None:
    one = KisSection(
        environment="simulator", max_workers=4, token_folder="/x", simulator=SimulatorSection(quota=5, port=1)
    )
    assert one.keyed() == KisSection(environment="simulator").keyed()
    assert one.keyed() != KisSection(environment="simulator", simulator=SimulatorSection(seed=8)).keyed()
    live = KisSection(environment="live")
    assert live.keyed() == KisSection(environment="live", simulator=SimulatorSection(seed=8)).keyed()
    assert "code" in one.keyed()["simulator"]


SECRETS = ("PS/a+b=c" * 4, "s/e+c=" * 30, "12345678-01", "a.b.c")


@given(
    secret=st.sampled_from(SECRETS),
    spell=st.sampled_from([str, quote, quote_plus, lambda t: quote(t, safe=""), lambda t: orjson.dumps(t).decode()]),
    before=st.text(max_size=9),
    after=st.text(max_size=9),
    field=st.sampled_from(["error_code", "error_description", "msg_cd", "msg1"]),
    status=st.sampled_from([200, 403, 500]),
)
def test_no_secret_gets_through(
    secret: str, spell: Callable[[str], str], before: str, after: str, field: str, status: int
) -> None:
    body = orjson.dumps({"rt_cd": "1", field: before + spell(secret) + after})
    _, code, text, _ = judge(status, body, Mask(*SECRETS, ""))
    assert secret not in code + text and spell(secret) not in code + text
    assert "***" in code + text


def test_bytes_that_are_kept_hold_no_secret() -> None:
    mask = Mask("key/with=signs", "secret")
    content = b'{"output":[{"a":"1"}],"echo":"key/with=signs, key\\/with=signs, key%2Fwith%3Dsigns, secret"}'
    assert mask.raw(content) == b'{"output":[{"a":"1"}],"echo":"***, ***, ***, ***"}'
    assert mask.raw(b"nothing") == b"nothing"


def test_an_account_is_known_without_its_dash_and_other_words_stay() -> None:
    mask = Mask("12345678-01", "")
    assert mask("1234567801 12345678 12345678-01") == "*** *** ***"
    assert mask("87654321, check the app key") == "87654321, check the app key"
    mask.add("check")
    assert mask("check it") == "*** it"


@pytest.mark.parametrize("name", ["rest_url", "master_url"])
@pytest.mark.parametrize("environment", ["live", "paper"])
def test_real_keys_and_symbols_take_no_open_wire(name: str, environment: str) -> None:
    for url in (
        "http://kis.example:80",
        "http://localhost@kis.example/x",
        "http://10.0.0.1:9",
        "http://127.0.0.1.example",
    ):
        with pytest.raises(ValidationError, match="expected https:// for another host"):
            KisSection.model_validate({"environment": environment, name: url})
        assert KisSection.model_validate({"environment": "simulator", name: url})
    for url in ("http://127.0.0.1:9", "http://localhost:9/a", "http://[::1]:9", "https://kis.example", ""):
        assert getattr(KisSection.model_validate({"environment": environment, name: url}), name) == url
