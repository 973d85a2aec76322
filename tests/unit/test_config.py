"""Configuration: sources and their order, and what is said when a key is wrong."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from pipeline import config
from pipeline.config import Config, ConfigError


def load(*words: str) -> Config:
    return config.load(words, "test", "")[0]


def test_base_yaml_is_what_the_sections_say() -> None:
    command = [sys.executable, str(config.ROOT / "scripts" / "config.py")]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert config.BASE.read_text(encoding="utf-8") == made, "run: python scripts/config.py > configs/base.yaml"


def test_the_later_source_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("train: {batch_size: 11, seed: 5, hidden_size: 7}\n")
    two.write_text("train: {batch_size: 12, seed: 6}\n")
    monkeypatch.setenv("PIPELINE__TRAIN__SEED", "8")
    found = load("--config", str(one), str(two), "--train.window", "9")
    assert (found.train.hidden_size, found.train.batch_size, found.train.seed, found.train.window) == (7, 12, 8, 9)
    assert load("--config", str(one), "--train.seed", "3").train.seed == 3


def test_the_short_word_for_the_level_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE__RUN__LOG_LEVEL", "ERROR")
    assert load().run.log_level == "ERROR"
    assert load("--log-level", "debug").run.log_level == "DEBUG"


def test_a_section_left_empty_changes_nothing(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("train: {seed: 5}\ningest: {files: {venue: NXT}}\n")
    two.write_text("train:\ningest:\n  files:\nreport:\n")
    found = load("--config", str(one), str(two))
    assert (found.train.seed, found.ingest.files.venue) == (5, "NXT")
    assert found.report == load().report


def test_a_wrong_value_in_a_list_is_one_sentence() -> None:
    with pytest.raises(ConfigError) as error:
        load("--labels.horizons", "0")
    assert str(error.value).startswith("labels.horizons.0: input should be greater than or equal to 1, got ")
    assert str(error.value).endswith("(command line)")
    assert "\n" not in str(error.value)


def test_today_is_a_date_at_load() -> None:
    assert isinstance(load().ingest.end, date)
    assert load("--ingest.end", "today").ingest.end == load().ingest.end


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--train.batchsize", "3"], r"--train\.batchsize.*did you mean train\.batch_size"),
        (["--batch_size", "3"], r"did you mean train\.batch_size|did you mean predict\.batch_size"),
        (["--train.batch_size", "many"], r"train\.batch_size: .*valid integer.*'many' \(command line\)"),
        (["--train.batch_size", "0"], r"train\.batch_size: .*greater than or equal to 1"),
        (["--cluster.device", "tpu"], r"cluster\.device: .*'auto', 'cpu' or 'gpu'"),
        (["--log-level", "LOUD"], r"run\.log_level: .*\(command line\)"),
        (["--ingest.symbols", "005930", "000270"], r"unexpected word '000270'.*commas"),
        (["--config", "nowhere.yaml"], r"expected a configuration file at nowhere\.yaml"),
    ],
)
def test_wrong_words_are_named(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(*words)


def test_broken_json_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"expected JSON .* got .*'features'|\"features\".*mind the quotes"):
        load("--features.extra", "[{indicator: rsi}]")


def test_wrong_keys_in_files_are_named_with_the_file(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("train: {epochs: 3}\nlable: {}\n")
    with pytest.raises(ConfigError) as error:
        load("--config", str(wrong))
    assert "train.epochs: unknown key" in str(error.value)
    assert "train.num_epochs" in str(error.value)
    assert str(wrong) in str(error.value)
    assert "lable: unknown key" in str(error.value)
    wrong.write_text("- a\n")
    with pytest.raises(ConfigError, match="expected sections"):
        load("--config", str(wrong))
    wrong.write_text("train: {")
    with pytest.raises(ConfigError, match="expected YAML"):
        load("--config", str(wrong))


def test_wrong_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE__TRAIN__BATCH_SIZE", "x")
    with pytest.raises(ConfigError, match=r"environment PIPELINE__TRAIN__BATCH_SIZE"):
        load()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "PIPELINE__TRIAN__BATCH_SIZE",
            r"trian\.batch_size: unknown key \(environment .*did you mean train\.batch_size",
        ),
        ("PIPELINE__TRAIN__BATCHSIZE", r"did you mean train\.batch_size"),
        ("PIPELINE__TRIAN", r"did you mean train\?"),
    ],
)
def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, said: str) -> None:
    monkeypatch.setenv(name, "3")
    with pytest.raises(ConfigError, match=said):
        load()


def test_today_works_in_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load().ingest.end
    monkeypatch.setenv("PIPELINE__INGEST__END", "today")
    assert load().ingest.end == expected


def test_a_configuration_of_the_project_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load("--config", "configs/smoke.yaml").run.name == "smoke"


def test_help_lists_every_key_with_unit_and_range(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        load("--help")
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    known = config.keys()
    missing = [key for key in known if f"--{key}" not in text]
    assert not missing
    assert ">= 1" in text


def test_secrets_are_in_no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVE_KIS_APP_KEY", "PSsecretsecretsecretsecretsecret0123")
    monkeypatch.setenv("LIVE_KIS_APP_SECRET", "s3cr3t" * 30)
    found = load()
    assert "secretsecret" not in config.as_yaml(found) + repr(found)
    assert "s3cr3t" not in config.as_yaml(found) + repr(found)


def test_sections_are_frozen() -> None:
    with pytest.raises(Exception, match="frozen"):
        load().train.seed = 4  # type: ignore[misc]
