"""setup.cfg, constraints.txt and conda-env.yml say the same."""

from __future__ import annotations

import configparser
from pathlib import Path

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


def test_the_conda_environment_repeats_the_pins(root: Path) -> None:
    exact = pins(root)
    conda = yaml.safe_load((root / "conda-env.yml").read_text())
    renamed = {
        "pytorch-gpu": "torch",
        "cudf": "cudf-cu13",
        "dask-cudf": "dask-cudf-cu13",
        "rmm": "rmm-cu13",
        "cupy": "cupy-cuda13x",
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
    renamed = {"torch": "pytorch-gpu"}
    missing = {r.name for r in bounds(root)["core"]} - {"dask"}
    missing = {n for n in missing if renamed.get(n, n) not in plain | by_pip}
    assert not missing
