"""A strategy of one's own: a copy of the template anywhere, or a file beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import importlib, json, sys
from pipeline.backtest import sweep
from tests.sweep_bars import walk
module, name = sys.argv[1:]
strategy = getattr(importlib.import_module(module), name)
rows = sweep(walk(2_000), strategy, [{"trend_timeframe": "4h", "rsi": n} for n in (5, 9)], venue="24h")
print(json.dumps(rows[["trades", "end_equity"]].to_numpy().tolist()))
"""
KEYS = """
import json
from pipeline.config import Config
from pipeline.stages import STAGES, parts
from pipeline.strategies import names
from storage.section import digest_of

stage = next(one for one in STAGES if one.name == "optimize")
def key(name):
    return digest_of(parts(stage, Config.model_validate({"optimize": {"strategy": name}}), {}, "cpu"))
print(json.dumps({name: key(name) for name in names()}))
"""


def said(code: str, *arguments: str, path: list[Path], folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), **more}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=170, check=False)


def copied(root: Path, folder: Path, name: str) -> Path:
    text = (root / "pipeline" / "strategies" / "template.py").read_text(encoding="utf-8")
    text = text.replace("template = Strategy", f"{name} = Strategy").replace('name="template"', f'name="{name}"')
    assert text.count(name) == 2
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder / f"{name}.py"


def test_compiled_code_of_a_file_serves_its_copies_after_it_is_gone(root: Path, tmp_path: Path) -> None:
    """A file that is run, renamed and moved into the project has the same step, and finds it compiled."""
    outs = []
    for module, name in (("first", "first"), ("second", "second"), ("pipeline.strategies", "template")):
        file = None if name == "template" else copied(root, tmp_path, name)
        done = said(
            RUN, module, name, path=[root, tmp_path], folder=tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "compiled")
        )
        assert done.returncode == 0, done.stderr
        outs.append(json.loads(done.stdout))
        if file:
            file.unlink()
    assert outs[0] == outs[1] == outs[2] and outs[0][0][0] > 0
    assert len([path for path in (tmp_path / "compiled").rglob("*.nbc") if path.name.startswith("driver.")]) == 1


@pytest.fixture
def tree(root: Path, tmp_path: Path) -> Path:
    """A copy of the packages."""
    for name in ("pipeline", "training", "storage", "configs"):
        shutil.copytree(root / name, tmp_path / "tree" / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "tree"


def test_a_file_beside_the_others_is_known_and_changes_no_other_search(root: Path, tree: Path) -> None:
    def keys() -> dict[str, str]:
        done = said(KEYS, path=[tree], folder=tree)
        assert done.returncode == 0, done.stderr
        found: dict[str, str] = json.loads(done.stdout)
        return found

    before = keys()
    file = copied(root, tree / "pipeline" / "strategies", "mine")
    after = keys()
    assert {**before, "mine": after["mine"]} == after and len(set(after.values())) == len(before) + 1
    file.write_text(file.read_text(encoding="utf-8").replace('Parameter("rsi", 14', 'Parameter("rsi", 12'), "utf-8")
    assert {name for name, key in keys().items() if key != after[name]} == {"mine"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_this_name", "No module named 'nothing_of_this_name'"),
        ("x = (", "SyntaxError"),
        ("from .template import template as other", "expected mine = Strategy(name='mine', ...)"),
        ("from .template import template as mine", "name both like the file"),
    ],
)
def test_a_file_without_its_strategy_is_named_and_hinders_no_other(tree: Path, text: str, message: str) -> None:
    (tree / "pipeline" / "strategies" / "mine.py").write_text(text, encoding="utf-8")
    of = "from pipeline.strategies import strategy_of; import sys; print(strategy_of(sys.argv[1]).name)"
    done = said(of, "mine", path=[tree], folder=tree)
    assert done.returncode and message in done.stderr and "pipeline/strategies/mine.py" in done.stderr
    assert said(of, "donchian_breakout", path=[tree], folder=tree).stdout == "donchian_breakout\n"


def test_a_file_may_sweep_by_itself(root: Path, tree: Path) -> None:
    file = copied(root, tree / "pipeline" / "strategies", "mine")
    file.write_text(
        file.read_text(encoding="utf-8").replace(
            "from typing import Any", "from typing import Any\nfrom pipeline.backtest import instruments, sweep"
        )
        + "\nif __name__ == '__main__':\n    print(mine.name, callable(sweep))\n",
        encoding="utf-8",
    )
    env = {**os.environ, "PYTHONPATH": str(tree)}
    own = subprocess.run([sys.executable, str(file)], env=env, cwd=tree, capture_output=True, text=True, check=False)
    assert own.stdout == "mine True\n", own.stderr
    first = "from pipeline.backtest import sweep; from pipeline.strategies import strategy_of; strategy_of('mine')"
    assert said(first, path=[tree], folder=tree).returncode == 0
