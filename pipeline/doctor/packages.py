"""Is what is installed what setup.cfg asks for?"""

from __future__ import annotations

import configparser
import importlib.metadata
import platform
import sys
from pathlib import Path

from .finding import Finding, Status

ROOT = Path(__file__).resolve().parent.parent.parent
DISTRIBUTION = "krx-research-pipeline"
OLDEST_PYTHON, NEWEST_TRIED = (3, 11), (3, 13)


def python() -> Finding:
    """Check the version of Python."""
    found = sys.version_info[:2]
    text = f"{platform.python_version()} at {sys.executable}"
    if found < OLDEST_PYTHON:
        return Finding("python", "fail", text, "install Python 3.11 and run make again")
    if found > NEWEST_TRIED:
        return Finding(
            "python", "warn", text, "3.11 to 3.13 are tried; with others the pinned packages may not install"
        )
    return Finding("python", "ok", text)


def requirements(extra: str) -> list[str]:
    """Return the requirements of the core (extra "") or of an extra: of setup.cfg beside the code, else installed."""
    setup = configparser.ConfigParser()
    if setup.read(ROOT / "setup.cfg") and setup.get("metadata", "name", fallback="") == DISTRIBUTION:
        section, key = ("options.extras_require", extra) if extra else ("options", "install_requires")
        lines = setup.get(section, key, fallback="").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    try:
        known = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    mark = f'extra == "{extra}"' if extra else ""
    return [line.split(";")[0].strip() for line in known if (mark in line if extra else "extra ==" not in line)]


def installed(
    required: list[str],
    *,
    name: str = "packages",
    remedy: str = "run make run (or pip install -c constraints.txt -e .)",
    missing: Status = "fail",
) -> list[Finding]:
    """Compare the installed packages with their bounds: a line for each that is missing or outside, one for the rest.

    `missing` is the status of a package that is not there; one outside its bounds is a warning.
    """
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return [Finding(name, "fail", "nothing is installed: the package 'packaging' is missing", remedy)]
    out, good = [], 0
    for line in required:
        one = Requirement(line)
        if one.marker is not None and not one.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(one.name)
        except importlib.metadata.PackageNotFoundError:
            text = f"not installed, expected {one.specifier or 'any version'}"
            out.append(Finding(f"package {one.name}", missing, text, remedy))
            continue
        if one.specifier.contains(version, prereleases=True):
            good += 1
        else:
            out.append(Finding(f"package {one.name}", "warn", f"{version} is outside {one.specifier}", remedy))
    text = (
        f"{good} of {good + len(out)} within the bounds of setup.cfg" if required else "no list of requirements found"
    )
    return [Finding(name, "ok" if good else "warn", text, "" if good else remedy), *out]
