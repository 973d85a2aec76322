"""Every kernel compiles and links to a cubin for sm_90 (H100, H200), without local memory. It runs nothing: no GPU
is needed.

numba-cuda asks for the current device while it types a device function; here it is told that there is one of that kind.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json
import numba.cuda.dispatcher as dispatcher
from cuda.bindings import nvjitlink
from numba import cuda, types
from pipeline.indicators import ALL
from pipeline.recurrence.lanes import _launcher

class Hopper:
    compute_capability = (9, 0)

dispatcher.get_current_device = lambda: Hopper
array = lambda kind, n: types.Array(kind, n, "C")
f64 = types.float64
signature = types.void(array(f64, 3), array(f64, 1), array(f64, 2), array(f64, 3), array(types.int64, 1))
found = {}
for one in ALL:
    kernel = _launcher(one.kernel).py_func
    ptx, _ = cuda.compile(kernel, signature, cc=(9, 0), device=False, abi="numba", output="ptx")
    linker = nvjitlink.create(1, ["-arch=sm_90"])
    text = ptx.encode()
    nvjitlink.add_data(linker, nvjitlink.InputType.PTX, text, len(text), one.name)
    nvjitlink.complete(linker)
    found[one.name] = {"bytes": nvjitlink.get_linked_cubin_size(linker), "local": ".local" in ptx}
print(json.dumps(found))
"""


@pytest.mark.slow
def test_every_kernel_compiles_for_a_hopper_gpu(root: Path) -> None:
    if importlib.util.find_spec("numba_cuda") is None:
        pytest.skip("numba-cuda is not installed: make test-all installs it")
    from pipeline.indicators import ALL

    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == {one.name for one in ALL}
    assert all(f["bytes"] > 1000 and not f["local"] for f in found.values()), found
