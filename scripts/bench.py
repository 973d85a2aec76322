"""Run a benchmark: `python scripts/bench.py NAME --json` prints one JSON line a measure, without --json a table.

A benchmark is a module tests/bench/NAME.py with `run() -> Iterator[Measure]`. Names, definitions and targets of all
measures stand in docs/benchmarks/targets.json; a measure that the module does not give makes the command fail.
`indicators --levels` prints the seconds of each features.level instead (tests/bench/levels.py), which have no targets.
"""

import argparse
import importlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
BESIDE = ("__init__", "measure", "levels")  # of tests/bench, that are no benchmarks


def main() -> int:
    targets = json.loads((ROOT / "docs" / "benchmarks" / "targets.json").read_text())
    there = sorted(p.stem for p in (ROOT / "tests" / "bench").glob("*.py") if p.stem not in BESIDE)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="*", metavar="NAME", help=f"one of: {', '.join(there)}; none = all")
    parser.add_argument("--json", action="store_true", help="one JSON line a measure")
    parser.add_argument("--levels", action="store_true", help="of indicators: seconds of each features.level")
    words = parser.parse_args()
    if words.levels:
        if words.name != ["indicators"]:
            parser.error("expected --levels with the benchmark indicators alone")
        return levels(words.json)
    unknown = set(words.name) - set(there)
    if unknown:
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; there are {', '.join(there)}")
    missing = []
    for name in words.name or there:
        wanted = {t["name"]: t for t in targets if t["bench"] == name}
        for measure in importlib.import_module(f"tests.bench.{name}").run():
            target = wanted.pop(measure.name)
            line = {
                "name": measure.name,
                "unit": target["unit"],
                "ours": measure.ours,
                "peer": measure.peer,
                "value": measure.value,
            }
            print(json.dumps(line) if words.json else _row(line, target), flush=True)
            if measure.note:
                print(f"bench: {measure.name}: {measure.note}", file=sys.stderr)
        missing += wanted
    if missing:
        print(f"bench: no value for {', '.join(missing)}", file=sys.stderr)
    return 1 if missing else 0


def levels(as_json: bool) -> int:
    for measure in importlib.import_module("tests.bench.levels").run():
        line = {"name": measure.name, "unit": "s", "ours": measure.ours, "peer": None, "value": measure.value}
        print(
            json.dumps(line) if as_json else f"{measure.name:<34} {measure.value:>12.4g} s   {measure.note}", flush=True
        )
    return 0


def _row(line: dict, target: dict) -> str:
    value, goal = line["value"], target["target"]
    met = (
        ""
        if goal is None
        else ("met" if (value >= goal if target["better"] == "higher" else value <= goal) else "MISSED")
    )
    return f"{line['name']:<34} {value:>12.4g} {line['unit']:<8} target {goal if goal is not None else '-':>10} {met}"


if __name__ == "__main__":
    sys.exit(main())
