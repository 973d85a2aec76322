"""setup.cfg, constraints.txt and conda-env.yml say the same; make says which Python it can use; the READMEs' map names
what there is."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonical


def pins(root: Path) -> dict[str, str]:
    lines = [x.split("#")[0].strip() for x in (root / "constraints.txt").read_text().splitlines()]
    found = [Requirement(x) for x in lines if x]
    assert all(len(r.specifier) == 1 and next(iter(r.specifier)).operator == "==" for r in found)
    return {canonical(r.name): next(iter(r.specifier)).version for r in found}


def bounds(root: Path) -> dict[str, list[Requirement]]:
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    texts = {"core": setup["options"]["install_requires"], **setup["options.extras_require"]}
    return {
        name: [Requirement(line) for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
        for name, text in texts.items()
    }


def test_every_requirement_is_pinned_within_its_bounds(root: Path) -> None:
    exact = pins(root)
    for extra, requirements in bounds(root).items():
        for requirement in requirements:
            name = canonical(requirement.name)
            assert name in exact, f"{name} of [{extra}] has no pin in constraints.txt"
            assert requirement.specifier.contains(exact[name]), (
                f"{requirement} of [{extra}] excludes the pin {exact[name]}"
            )


def test_make_installs_extras_that_there_are(root: Path) -> None:
    asked = re.findall(r"call install,\[(.*?)\]", (root / "Makefile").read_text())
    names = {name for words in asked for name in words.split("$(comma)")}
    assert {"test", "lakes"} <= names <= set(bounds(root)), "pip says no more than a warning about an unknown extra"


def test_the_conda_environment_repeats_the_pins(root: Path) -> None:
    exact = pins(root)
    conda = yaml.safe_load((root / "conda-env.yml").read_text())
    renamed = {
        "pytorch-gpu": "torch",
        "cudf": "cudf-cu13",
        "dask-cudf": "dask-cudf-cu13",
        "rmm": "rmm-cu13",
        "cupy": "cupy-cuda13x",
        "python-xxhash": "xxhash",
    }
    plain = [d for d in conda["dependencies"] if isinstance(d, str)]
    listed = {x.split("=")[0]: x.split("=")[1] for x in plain if "=" in x}
    for name, version in listed.items():
        pin = exact.get(canonical(renamed.get(name, name)))
        if name not in ("python", "cuda-version"):
            assert pin and (pin == version or pin.startswith(version + ".")), f"{name} {version} is not the pin {pin}"
    by_pip = next(d["pip"] for d in conda["dependencies"] if isinstance(d, dict))
    for line in by_pip:
        if "==" in line:
            name, version = line.split("==")
            assert exact[canonical(name)] == version


def test_the_conda_environment_holds_all_that_the_core_needs(root: Path) -> None:
    conda = yaml.safe_load((root / "conda-env.yml").read_text())
    plain = {d.split("=")[0] for d in conda["dependencies"] if isinstance(d, str)}
    by_pip = {line.split("==")[0] for d in conda["dependencies"] if isinstance(d, dict) for line in d["pip"]}
    renamed = {"torch": "pytorch-gpu", "xxhash": "python-xxhash"}
    missing = {r.name for r in bounds(root)["core"]} - {"dask"}
    missing = {n for n in missing if renamed.get(n, n) not in plain | by_pip}
    assert not missing


@pytest.mark.parametrize(("name", "first"), [("README.md", "| folder |"), ("README.ko.md", "| 폴더 |")])
def test_the_map_of_the_house_names_what_there_is(root: Path, name: str, first: str) -> None:
    table = (root / name).read_text(encoding="utf-8").split(first)[1].split("\n\n")[0]
    named = {word.rstrip("/").split("/")[-1] for word in re.findall(r"`([a-z_/]+)`", table)}
    folders = [root, *(root / f for f in ("storage", "pipeline", "pipeline/kis", "pipeline/kis/simulator", "scripts"))]
    there = {path.stem for folder in folders for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert len(named) > 80 and named <= there
    small = {"__init__", "embedded", "emit", "interrupt", "job", "provenance"}  # what a map can do without
    modules = {path.stem for folder in folders[1:-1] for path in folder.glob("*.py")}
    assert modules - small <= named, "the map lacks modules"


def make_venv(folder: Path, python: str | Path) -> tuple[int, str, list[str]]:
    """Run `make venv`; return its status, what it printed and the errors that are not make's own line."""
    if shutil.which("make") is None:
        pytest.skip("no make on this machine")
    shutil.copy(Path(__file__).parents[2] / "Makefile", folder)
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON")}
    command = ["make", "--no-print-directory", "venv", f"PYTHON={python}"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout, [x for x in done.stderr.splitlines() if not x.startswith("make: ***")]


def interpreter(path: Path, version: str) -> Path:
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("python", ["/bin/ls", "/bin/true", "/bin/echo", "/nonexistent/python"])
def test_what_is_no_interpreter_is_one_sentence(tmp_path: Path, python: str) -> None:
    status, said, errors = make_venv(tmp_path, python)
    expected = f"make: expected Python 3.11, found no Python at '{python}'; install python3.11 or give PYTHON="
    assert (status, errors) == (2, [])
    assert said.startswith(expected) and said.count("\n") == 1
    assert not (tmp_path / ".venv").exists()


def test_python_too_old_is_one_sentence(tmp_path: Path) -> None:
    status, said, errors = make_venv(tmp_path, interpreter(tmp_path / "old", "3.9"))
    assert (status, errors) == (2, [])
    assert said.startswith(f"make: expected Python 3.11, found 3.9 at '{tmp_path / 'old'}'")


def test_an_environment_of_another_python_or_half_made_is_said(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / ".venv"], check=True)
    status, said, errors = make_venv(tmp_path, "")
    assert (status, errors) == (2, []) and "half made" in said and said.endswith("make clean\n")
    interpreter(tmp_path / ".venv" / "bin" / "pip", "23")
    assert make_venv(tmp_path, "") == (0, "", [])
    assert make_venv(tmp_path, sys.executable) == (0, "", [])
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    for python, asked in ((interpreter(tmp_path / "later", "3.99"), "3.99"), (Path("/bin/true"), "no Python")):
        said = f"make: .venv has Python {here}, PYTHON={python} is {asked}; to use another one, first: make clean\n"
        assert make_venv(tmp_path, python) == (2, said, [])
