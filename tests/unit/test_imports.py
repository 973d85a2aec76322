"""The house has floors: storage <- training <- pipeline <- scripts, and each heavy library has its rooms."""

from __future__ import annotations

import ast
import re
from pathlib import Path

FLOORS = {"storage": 0, "training": 1, "pipeline": 2, "scripts": 3, "run_optimized_pipeline": 3}
# library -> the only places (files or folders) that may import it
ROOMS = {
    "cudf": ("storage/lake.py",),
    "dask_cudf": (),
    "dask_cuda": ("pipeline/cluster.py",),
    "rmm": ("pipeline/cluster.py",),
    "numba": (
        "pipeline/recurrence",
        "training/gather.py",
        "pipeline/backtest/single/driver.py",
        "pipeline/backtest/single/lanes.py",
        "pipeline/cluster.py",
    ),
    "llvmlite": ("pipeline/recurrence",),
    "cupy": ("pipeline/recurrence", "training/gather.py", "pipeline/cluster.py"),
    "torch": ("training/", "pipeline/cluster.py"),
    "optuna": ("training/search/", "storage/studies.py"),
    "optuna_integration": ("training/search/", "storage/studies.py"),
    "aiohttp": ("pipeline/kis/",),
    "vectorbt": (),
    "backtesting": (),
    "talib": (),
    "tests": (),
}
EXEMPT = ("scripts/bench.py", "scripts/gpu_check.py")


def imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module and not n.level}
    return {name.split(".")[0] for name in names}


def sources(root: Path) -> list[Path]:
    return [
        root / "run_optimized_pipeline.py",
        *(p for floor in ("storage", "training", "pipeline", "scripts") for p in (root / floor).rglob("*.py")),
    ]


def test_no_import_goes_up(root: Path) -> None:
    wrong = []
    for path in sources(root):
        here = FLOORS[path.relative_to(root).parts[0].removesuffix(".py")]
        wrong += [f"{path.relative_to(root)} imports {name}" for name in imported(path) if FLOORS.get(name, -1) > here]
    assert not wrong


def test_heavy_libraries_stay_in_their_rooms(root: Path) -> None:
    wrong = []
    for path in sources(root):
        where = str(path.relative_to(root))
        if where in EXEMPT:
            continue
        for name in imported(path) & ROOMS.keys():
            if not where.startswith(ROOMS[name] or ("\0",)):
                wrong.append(f"{where} imports {name}")
    assert not wrong


def test_the_table_of_rooms_is_not_out_of_date(root: Path) -> None:
    for name, rooms in ROOMS.items():
        for room in rooms:
            assert list(root.glob(f"{room.rstrip('/')}*")), f"{name}: {room} does not exist"


def test_only_scripts_print(root: Path) -> None:
    allowed = {"pipeline/cli.py"}  # what the scripts call
    wrong = []
    for path in sources(root):
        where = str(path.relative_to(root))
        if where.startswith("scripts/") or where in allowed:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        wrong += [
            where
            for n in ast.walk(tree)
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "print"
        ]
    assert not wrong


def test_what_the_texts_import_is_there(root: Path) -> None:
    wanted = re.compile(r"^ *(from (?:pipeline|training|storage)[\w.]* import [\w, ]+?)(?: +#.*)?$", re.MULTILINE)
    texts = [*root.glob("README*.md"), *(root / "docs").glob("*.md")]
    lines = {line for path in texts for line in wanted.findall(path.read_text(encoding="utf-8"))}
    assert len(lines) > 5
    for line in sorted(lines):
        exec(line, {})
