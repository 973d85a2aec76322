"""A key changes when the code behind a stage changes, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import provenance


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project of the same shape; only the root folder is another."""
    files = {
        "storage/__init__.py": "",
        "storage/a.py": "X = 1\n",
        "pipeline/__init__.py": "",
        "pipeline/kernels.py": "def f(): return 1\n",
        "pipeline/other.py": "Y = 2\n",
        "pipeline/typing_only.py": "Z = 3\n",
        "pipeline/sets/basic.yaml": "- sma\n",
        "pipeline/features.py": (
            "from typing import TYPE_CHECKING\nfrom storage.a import X\nfrom . import kernels\nFOLDER = 'sets'\n"
            "if TYPE_CHECKING:\n    from .typing_only import Z\n"
            "def late():\n    from .other import Y\n"
        ),
        "pipeline/stranger.py": "S = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    return tmp_path


def digest() -> str:
    provenance._parsed.cache_clear()
    return provenance.code_digest("pipeline.features")


@pytest.mark.parametrize(
    "name",
    ["storage/a.py", "pipeline/kernels.py", "pipeline/other.py", "pipeline/sets/basic.yaml", "pipeline/features.py"],
)
def test_an_edit_behind_the_stage_changes_its_digest(house: Path, name: str) -> None:
    before = digest()
    (house / name).write_text((house / name).read_text() + "\n# edited\n")
    assert digest() != before


@pytest.mark.parametrize("name", ["pipeline/stranger.py", "pipeline/typing_only.py"])
def test_an_edit_elsewhere_does_not(house: Path, name: str) -> None:
    before = digest()
    (house / name).write_text("# edited\n")
    assert digest() == before


def test_the_real_stages_see_what_they_use() -> None:
    closure = {str(p.relative_to(provenance.ROOT)) for p in provenance._closure(["pipeline.features.stage"])}
    assert "storage/lake.py" in closure
    assert any(p.startswith("pipeline/indicators/") for p in closure)
    assert any(p.startswith("pipeline/recurrence") for p in closure)
    assert not any(p.startswith("training/") for p in closure)
    assert "pipeline/stages.py" not in closure
    learning = {str(p.relative_to(provenance.ROOT)) for p in provenance._closure(["pipeline.learn.train"])}
    assert "training/trainer.py" in learning
    assert not any(p.startswith("pipeline/indicators/") for p in learning)


def test_the_environment_names_no_secret_and_no_host() -> None:
    found = provenance.environment("cpu")
    assert found["packages"]["numpy"]
    assert set(found) == {"python", "system", "cores", "memory_gb", "device", "packages", "commit"}
