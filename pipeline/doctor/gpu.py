"""Are there GPUs, and do driver, CUDA and the libraries fit together? Asked in a subprocess: this one must not touch
CUDA.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from .finding import Finding, Status
from .packages import ROOT, installed, requirements

Device = Literal["auto", "cpu", "gpu"]
PROBE_S = 120.0  # importing cudf on a cold disk takes its time
PROBE = """
import json
import sys
out = {"gpus": []}
def ask(name, question):
    try:
        out[name] = question()
    except Exception as error:  # drivers and CUDA libraries raise anything; all of it is the answer to the question
        out[name + "_error"] = f"{type(error).__name__}: {error}"[:300]
def driver():
    import pynvml as n
    n.nvmlInit()
    handles = [n.nvmlDeviceGetHandleByIndex(i) for i in range(n.nvmlDeviceGetCount())]
    out["gpus"] = [{"name": n.nvmlDeviceGetName(h), "gb": n.nvmlDeviceGetMemoryInfo(h).total / 1e9} for h in handles]
    out["cuda_driver"] = n.nvmlSystemGetCudaDriverVersion_v2()
    return n.nvmlSystemGetDriverVersion()
def visible():
    sys.path.insert(0, sys.argv[1])
    from pipeline.cluster import gpu_count
    return gpu_count()
def torch():
    import torch
    return {"version": torch.__version__, "cuda": torch.version.cuda, "available": torch.cuda.is_available()}
def cupy():
    import cupy
    return {"version": cupy.__version__, "cuda": cupy.cuda.runtime.runtimeGetVersion()}
def cudf():
    import cudf
    return {"version": cudf.__version__, "sum": int(cudf.Series([1, 2]).sum())}
def dask_cuda():
    import dask_cuda
    return {"version": dask_cuda.__version__}
ask("driver", driver)
for question in (visible, torch, cupy, cudf, dask_cuda) if out["gpus"] else ():
    ask(question.__name__, question)
print(json.dumps(out))
"""


def gpus(device: Device) -> list[Finding]:
    """Ask for GPUs, and whether driver, CUDA, torch, CuPy and cuDF fit together, where there are traces of a GPU."""
    if device == "cpu":
        return [Finding("gpu", "ok", "not asked: cluster.device is cpu")]
    traces = [*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("dxg")]
    if not traces and not shutil.which("nvidia-smi"):
        return judge_gpu({}, device)
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE, str(ROOT)], capture_output=True, text=True, timeout=PROBE_S, check=True
        )
        report: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        return [
            Finding(
                "gpu",
                "fail" if device == "gpu" else "warn",
                f"the GPU could not be asked: {error}"[:300],
                "run nvidia-smi; set cluster.device=cpu to go on without",
            )
        ]
    return judge_gpu(report, device)


def judge_gpu(report: Mapping[str, Any], device: Device) -> list[Finding]:
    """Turn what the subprocess found into findings; a fault is a failure when cluster.device is gpu, otherwise a
    warning.
    """
    bad: Status = "fail" if device == "gpu" else "warn"
    found = report.get("gpus", [])
    if not found:
        why = report.get("driver_error", "no NVIDIA device on this machine")
        if device == "auto" and "driver_error" not in report:
            return [Finding("gpu", "ok", f"none ({why}); the CPU is used")]
        remedy = "install the driver and the [gpu] extra, or set cluster.device=cpu"
        return [Finding("gpu", bad, f"none can be used: {why}", remedy)]
    cuda = int(report.get("cuda_driver", 0))
    names = ", ".join(f"{g['name']} {g['gb']:.0f} GB" for g in found)
    out = [
        Finding(
            "gpu",
            "ok",
            f"{len(found)}: {names}; driver {report.get('driver')}, CUDA up to {cuda // 1000}.{cuda % 1000 // 10}",
        )
    ]
    visible = report.get("visible", len(found))  # as the pipeline counts them; without its packages that is not asked
    if visible != len(found):
        text = f"{visible} of {len(found)}: CUDA_VISIBLE_DEVICES is '{os.environ.get('CUDA_VISIBLE_DEVICES', '')}'"
        if visible:
            out.append(Finding("gpu visible", "ok", text))
        else:
            remedy = "unset it or name a GPU such as 0; set cluster.device=cpu to go on without"
            return [*out, Finding("gpu visible", bad, f"{text}; the CPU is used" if device == "auto" else text, remedy)]
    for name in ("torch", "cupy", "cudf", "dask_cuda"):
        out.append(_judge_library(name, report, cuda, bad))
    return [
        *out,
        *installed(
            requirements("gpu"),
            name="gpu packages",
            remedy="create the environment of conda-env.yml, or pip install -e '.[gpu]'",
            missing=bad,
        ),
    ]


def _judge_library(name: str, report: Mapping[str, Any], driver_cuda: int, bad: Status) -> Finding:
    remedy = "create the environment of conda-env.yml, or pip install -c constraints.txt -e '.[gpu]'"
    found = report.get(name)
    if found is None:
        return Finding(f"gpu {name}", bad, f"cannot be used: {report.get(f'{name}_error', 'not asked')}", remedy)
    text = f"{name} {found['version']}"
    if name == "torch" and not found["cuda"]:
        return Finding("gpu torch", bad, f"{text} is a build for CPUs", "install torch with CUDA as conda-env.yml says")
    if name == "torch" and not found["available"]:
        return Finding(
            "gpu torch",
            bad,
            f"{text} for CUDA {found['cuda']} sees no GPU",
            "compare driver and CUDA; update the driver",
        )
    needed = int(float(found["cuda"]) * 1000) if name == "torch" else int(found.get("cuda", 0))
    if driver_cuda and needed // 1000 > driver_cuda // 1000:
        return Finding(
            f"gpu {name}",
            bad,
            f"{text} needs CUDA {needed // 1000}, the driver has {driver_cuda // 1000}",
            "update the driver",
        )
    return Finding(f"gpu {name}", "ok", text + (f", CUDA {found['cuda']}" if found.get("cuda") else ""))
