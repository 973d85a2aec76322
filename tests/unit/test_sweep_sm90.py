"""The event loop of every strategy compiles and links to a cubin for sm_90 (H100, H200): products are rounded before
sums, NaN is not dropped, and what a thread keeps lies in registers. It runs nothing: no GPU is needed.

numba-cuda asks for the current device while it types a device function; here it is told that there is one of that kind.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json
import re
import numba.cuda.dispatcher as dispatcher
from cuda.bindings import nvjitlink
from numba import cuda
from pipeline.backtest.single.lanes import SIGNATURE, lane
from pipeline.recurrence.exact import unfused
from pipeline.strategies import ALL

class Hopper:
    compute_capability = (9, 0)

dispatcher.get_current_device = lambda: Hopper
found = {}
for one in ALL:
    with unfused():
        plain = lane(one.step, len(one.columns), len(one.parameters))
        ptx, _ = cuda.compile(plain, SIGNATURE, cc=(9, 0), device=False, abi="numba", output="ptx")
    linker = nvjitlink.create(2, ["-arch=sm_90", "-verbose"])
    text = ptx.encode()
    nvjitlink.add_data(linker, nvjitlink.InputType.PTX, text, len(text), one.name)
    nvjitlink.complete(linker)
    told = bytearray(nvjitlink.get_info_log_size(linker))
    nvjitlink.get_info_log(linker, told)
    found[one.name] = {
        "bytes": nvjitlink.get_linked_cubin_size(linker), "told": told.decode(errors="replace"),
        "unlike": sorted(set(re.findall(r"(?:fma|min|max)\\.[a-z.]*f(?:32|64)|call[. ][^;]*", ptx))),
        "products": len(re.findall(r"mul\\.rn\\.f64", ptx)),
    }
print(json.dumps(found))
"""


@pytest.mark.slow
def test_every_strategy_compiles_for_a_hopper_gpu(root: Path) -> None:
    if importlib.util.find_spec("numba_cuda") is None:
        pytest.skip("numba-cuda is not installed: make test-all installs it")
    from pipeline.strategies import ALL

    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == {one.name for one in ALL}
    assert {name: f["unlike"] for name, f in found.items() if f["unlike"]} == {}
    assert min(f["bytes"] for f in found.values()) > 1_000 and min(f["products"] for f in found.values()) > 10
    for name, f in found.items():
        used = re.search(r"used (\d+) registers.*?(\d+) stack", f["told"])
        assert used and int(used[1]) <= 200, f"{name}: {f['told'][-200:]}"
        assert int(used[2]) <= 256, f"{name}: parameters and column numbers alone lie in memory"
