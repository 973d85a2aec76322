"""What scripts/ingest.py refuses: one sentence that says what to do, status 2, and a lake that is as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import job

WORDS = (
    *("--kis.environment", "simulator", "--kis.simulator.clock", "2026-10-30", "--kis.simulator.symbols", "20"),
    *("--ingest.end", "2026-10-30", "--ingest.start", "2026-10-01", "--ingest.minute_symbols", "0"),
)
KEY, SECRET = "PSzzk3ytestkeytestkeytestkeytestkey1", "zz9secretsecretsecre" * 9


@pytest.mark.parametrize(
    ("verb", "words", "says"),
    [
        ("audit", (), "--against"),
        ("audit", ("--against", "nowhere"), "expected a source of the lake"),
        ("mend", (), "expected plan, run, verify, repair or audit, got 'mend'"),
        ("run", ("--since", "yesterday"), "ingest.since"),
        ("run", ("--since",), "since"),
        ("run", ("--ingest.symbol", "005940"), "ingest.symbol"),
        ("run", ("--ingest.end", "2026-09-30"), "exchange them"),
        ("run", ("--ingest.end", "2026-13-40"), "ingest.end"),
        ("run", ("--ingest.end", "2026-12-30"), "the last session of KRX that is over"),
        ("plan", ("--ingest.end", "2026-12-30"), "the last session of KRX that is over"),
        ("run", ("--ingest.symbols", '["00594"]'), "005940"),
        ("plan", ("--ingest.symbols", '["ZZZZZZ"]'), "got ZZZZZZ"),
        ("repair", ("--ingest.path", "/nowhere"), "expected a broker's source, got files"),
        ("run", ("--kis.environment", "live"), "LIVE_KIS_APP_KEY"),
        ("verify", ("--kis.calls_per_second", "-1"), "kis.calls_per_second"),
    ],
)
def test_a_bad_command_is_explained(tmp_path: Path, verb: str, words: tuple[str, ...], says: str) -> None:
    ran = job.call("scripts/ingest.py", tmp_path, *WORDS, *words, verb=verb)
    assert ran.status == 2 and says in ran.err and "Traceback" not in ran.err, ran.err
    assert not list((tmp_path / "data").rglob("bars/**/*.parquet"))


@pytest.mark.parametrize(
    ("key", "secret", "names"),
    [
        ("", SECRET, "LIVE_KIS_APP_KEY"),
        (KEY, "", "LIVE_KIS_APP_SECRET"),
        ("short key", SECRET, "LIVE_KIS_APP_KEY"),
        (KEY, "two\nlines", "LIVE_KIS_APP_SECRET"),
    ],
)
def test_keys_that_cannot_be_keys_are_named_and_not_shown(tmp_path: Path, key: str, secret: str, names: str) -> None:
    words = ("--kis.environment", "live", "--kis.rest_url", "http://127.0.0.1:9")
    words += ("--ingest.end", "2026-10-30", "--ingest.start", "2026-10-01")
    ran = job.call("scripts/ingest.py", tmp_path, *words, LIVE_KIS_APP_KEY=key, LIVE_KIS_APP_SECRET=secret)
    assert ran.status == 2 and names in ran.err, ran.err
    for hidden in (key, secret):
        assert not hidden or hidden not in ran.err + ran.out


def test_a_live_only_call_on_paper_is_refused_before_it_is_made(tmp_path: Path) -> None:
    words = ("--kis.environment", "paper", "--kis.rest_url", "http://127.0.0.1:9")
    words += ("--ingest.end", "2026-10-30", "--ingest.start", "2026-10-01", "--ingest.minute_days", "3")
    ran = job.call("scripts/ingest.py", tmp_path, *words, PAPER_KIS_APP_KEY=KEY, PAPER_KIS_APP_SECRET=SECRET)
    assert ran.status == 2 and "paper has no minute bars of days before today" in ran.err, ran.err


def test_a_plan_leaves_nothing_behind(tmp_path: Path) -> None:
    ran = job.call("scripts/ingest.py", tmp_path, *job.FEW, verb="plan")
    assert ran.status == 0 and "calls" in ran.out, ran.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
