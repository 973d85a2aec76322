"""The main job on a LocalCUDACluster with the cuDF backend: the same graph, the same columns within the tolerance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cluster import gpu_count

from . import job

TOLERANCE = 1e-4  # float32 columns; GPU code fuses multiply and add


@pytest.mark.gpu
def test_the_main_job_runs_on_a_gpu_and_agrees_with_the_cpu(finished: tuple[Path, job.Ran], tmp_path: Path) -> None:
    if gpu_count() == 0:
        pytest.skip("NVML sees no GPU")
    pytest.importorskip("cudf")
    pytest.importorskip("dask_cuda")
    reference, _ = finished
    ran = job.run("run_optimized_pipeline.py", tmp_path, *job.SMOKE, "--cluster.device", "gpu", timeout=470)
    assert ran.status == 0, ran.err + ran.out[-3000:]
    assert job.manifests(tmp_path)["features"]["level"] == "cuda"
    cpu, gpu = (Path(job.manifests(f)["features"]["directory"]) for f in (reference, tmp_path))
    names = sorted(str(p.relative_to(cpu)) for p in cpu.glob("*/*.parquet"))
    assert names == sorted(str(p.relative_to(gpu)) for p in gpu.glob("*/*.parquet"))
    assert {name.split("/")[0] for name in names} >= {"blocks", "targets"}
    for name in names:
        a, b = pq.read_table(cpu / name), pq.read_table(gpu / name)
        exact = [field.name for field in a.schema if not pa.types.is_floating(field.type)]
        assert a.select(exact).equals(b.select(exact).cast(a.select(exact).schema))
        for field in a.schema:
            if pa.types.is_floating(field.type):
                np.testing.assert_allclose(
                    a[field.name].to_numpy(),
                    b[field.name].to_numpy(),
                    rtol=TOLERANCE,
                    atol=TOLERANCE,
                    err_msg=field.name,
                )
