"""Run everything that needs a GPU, in parts of a few minutes: `python scripts/gpu_check.py [PART …] [--out DIR]`.

Parts that need only torch, cupy and numba-cuda come first, so that a machine without RAPIDS is of use too. Each part
writes DIR/gpu-<part>.json with its outcome, measures (JSON lines, printed too), the hardware, driver and versions; a
part whose packages or GPU are missing says so and is no failure.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 480

PROBE = """
import json, importlib.metadata as m
out = {}
for name in ("torch", "cupy-cuda13x", "cupy-cuda12x", "numba", "numba-cuda", "cudf-cu13", "dask-cuda", "rmm-cu13",
"pandas", "numpy"):
    try: out[name] = m.version(name)
    except m.PackageNotFoundError: pass
try:
    import torch
    out["gpu"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    out["capability"] = ".".join(map(str, torch.cuda.get_device_capability(0))) if out["gpu"] else ""
    out["cuda"] = torch.version.cuda or ""
except ImportError:
    out["gpu"] = ""
print(json.dumps(out))
"""


@dataclass(frozen=True)
class Part:
    name: str
    needs: tuple[str, ...]
    command: tuple[str, ...]


def tests(*paths: str) -> tuple[str, ...]:
    return ("-m", "pytest", "-m", "gpu", "-ra", *paths)


TRAINING = ("training_windows", "training_trainer", "profile")
PARTS = (
    Part("parity", ("cupy", "numba"), ("-m", "tests.gpu.indicators", "parity")),
    Part("speed", ("cupy", "numba"), ("-m", "tests.gpu.indicators", "speed")),
    Part("kernels", ("cupy", "numba"), tests("tests/unit/test_indicators.py")),
    Part("sweep_parity", ("numba",), ("-m", "tests.gpu.sweep", "parity")),
    Part("sweep", ("numba",), ("-m", "tests.gpu.sweep", "speed")),
    Part("training", ("torch", "numba"), tests(*(f"tests/unit/test_{name}.py" for name in TRAINING))),
    Part("pipeline", ("cudf", "dask_cuda", "torch", "cupy"), tests("tests/unit/test_features.py", "tests/integration")),
    Part("bench", ("cudf", "dask_cuda", "torch", "cupy"), ("scripts/bench.py", "main", "--json")),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", metavar="PART", help=f"{', '.join(p.name for p in PARTS)}; none = all")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu", help="folder of the results")
    words = parser.parse_args()
    unknown = set(words.part) - {p.name for p in PARTS}
    if unknown:
        parser.error(f"unknown part {', '.join(sorted(unknown))}; there are {', '.join(p.name for p in PARTS)}")
    words.out.mkdir(parents=True, exist_ok=True)
    machine = environment()
    failed = False
    for part in PARTS:
        if words.part and part.name not in words.part:
            continue
        result = {"part": part.name, "date": time.strftime("%Y-%m-%d"), "machine": machine, **run(part, machine)}
        (words.out / f"gpu-{part.name}.json").write_text(json.dumps(result, indent=1) + "\n")
        print(
            f"{part.name:<10} {result['outcome']:<8} {result.get('seconds', 0):>7.1f} s  {result['text']}", flush=True
        )
        for measure in result.get("measures", []):
            print(json.dumps(measure), flush=True)
        failed |= result["outcome"] == "failed"
    return int(failed)


def environment() -> dict:
    found = json.loads(subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True).stdout)
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        found["nvidia_smi"] = subprocess.run(
            query, capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        found["nvidia_smi"] = ""
    return found


def run(part: Part, machine: dict) -> dict:
    missing = [name for name in part.needs if importlib.util.find_spec(name) is None]
    if missing:
        return {"outcome": "skipped", "text": f"packages not installed: {', '.join(missing)}"}
    if not machine["gpu"]:
        return {"outcome": "skipped", "text": "torch sees no GPU here"}
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, *part.command], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return {"outcome": "failed", "seconds": LIMIT_S, "text": f"not done within {LIMIT_S} s"}
    lines = (done.stdout + done.stderr).strip().splitlines()
    outcome = {0: "passed", 5: "skipped"}.get(done.returncode, "failed")
    return {
        "outcome": outcome,
        "seconds": round(time.perf_counter() - start, 1),
        "text": lines[-1] if lines else "",
        "measures": [json.loads(line) for line in lines if line.startswith('{"name"')],
        "output": lines[-200:],
    }


if __name__ == "__main__":
    sys.exit(main())
