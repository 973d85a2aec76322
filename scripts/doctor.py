"""Check this machine; options as for run_optimized_pipeline.py. Exit status 1 where something would make a run fail.

Without options nothing but the standard library is needed, so it also runs where nothing is installed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.doctor import Finding

MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


def main(arguments: list[str]) -> int:
    """Print one line a finding and return the exit status."""
    if sys.version_info < (3, 11):  # noqa: UP036  # what follows could not even be imported
        print(f"FAIL  python  expected 3.11 or later, got {sys.version.split()[0]} -> install Python 3.11")
        return 1
    from pipeline.doctor import run_checks

    try:
        findings = run_checks(_configured(arguments) if arguments else None)
    except Exception as error:  # ConfigError cannot be named here: its module needs what may not be installed
        if type(error).__module__ != "pipeline.config":
            raise
        print(f"doctor.py: {error}", file=sys.stderr)
        return 1
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        print(_line(finding, width))
    failed = sum(finding.status == "fail" for finding in findings)
    warned = sum(finding.status == "warn" for finding in findings)
    print(f"{failed} fault(s), {warned} warning(s), {len(findings)} checks")
    return 1 if failed else 0


def _line(finding: Finding, width: int) -> str:
    remedy = f" -> {finding.what_to_do}" if finding.what_to_do else ""
    return f"{MARKS[finding.status]}  {finding.name:<{width}}  {finding.text}{remedy}"


def _configured(arguments: list[str]) -> Config:
    from pipeline import config  # heavy: it imports every section

    return config.load(arguments, "doctor.py", "Check this machine.")[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
