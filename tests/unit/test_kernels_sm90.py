"""Every grid, of kernels, copies and windows, compiles and links to a cubin for sm_90 (H100, H200), without local
memory. It runs nothing: no GPU is needed.

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
from pipeline.recurrence.grids import column_grid, kernel_grid, tile_grid
from pipeline.recurrence.lanes import SHAPE
from training.gather import _on_gpu

class Hopper:
    compute_capability = (9, 0)

dispatcher.get_current_device = lambda: Hopper
array = lambda kind, n: types.Array(kind, n, "C")
f64, i64 = types.float64, types.int64
tiles, lanes, columns = array(f64, 3), array(i64, 1), array(f64, 2)
found = {}


def compiled(name, grid, *signature):
    ptx, _ = cuda.compile(
        grid.py_func, types.void(*signature), cc=(9, 0), device=False, abi="numba", output="ptx"
    )
    linker = nvjitlink.create(1, ["-arch=sm_90"])
    text = ptx.encode()
    nvjitlink.add_data(linker, nvjitlink.InputType.PTX, text, len(text), name)
    nvjitlink.complete(linker)
    found[name] = {"bytes": nvjitlink.get_linked_cubin_size(linker), "local": ".local" in ptx}


for one in ALL:
    compiled(one.name, kernel_grid(one.kernel), tiles, columns, lanes, columns, tiles, lanes, i64, i64)
compiled("in", tile_grid(SHAPE.side), columns, lanes, lanes, tiles, lanes, i64, i64, tiles)
for kind in (types.float32, f64):
    compiled(f"out {kind}", column_grid(SHAPE.side), tiles, i64, tiles, array(i64, 2), lanes, lanes, lanes, i64, i64,
             array(kind, 2))
f32 = types.float32
compiled("gather", _on_gpu(), array(f32, 2), lanes, array(f32, 3), types.boolean)
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
    assert found.keys() == {one.name for one in ALL} | {"in", "out float32", "out float64", "gather"}
    assert [name for name, f in found.items() if f["bytes"] < 1000 or f["local"]] == []
