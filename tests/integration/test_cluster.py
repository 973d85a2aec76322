"""Clusters are found or started, and what is not there is said."""

from __future__ import annotations

import importlib.machinery
import os
import socket
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dask
import psutil
import pytest
from distributed import Client, LocalCluster

from pipeline.cluster import MALLOC, Cluster, ClusterError, ClusterSection, DeviceError, gpu_count


def square(x: int) -> int:
    return x * x


def there_already(**more: Any) -> LocalCluster:
    """Start the cluster of somebody else: one worker, a thread of this process."""
    local = "127.0.0.1"
    place = {"protocol": "tcp", "host": local, "dashboard_address": f"{local}:0"}
    return LocalCluster(n_workers=1, threads_per_worker=1, processes=False, **place, **more)


def test_a_local_cluster_starts_on_first_use_and_ends(tmp_path: Path) -> None:
    events: list[tuple[str, dict[str, object]]] = []
    with Cluster(ClusterSection(device="cpu"), lambda kind, **fields: events.append((kind, fields))) as cluster:
        assert not cluster.started
        client = cluster.client()
        assert cluster.client() is client
        assert client.submit(square, 7, resources={"train": 1}).result(timeout=30) == 49
        dashboard = next(f["dashboard"] for k, f in events if k == "cluster")
        assert str(dashboard).startswith("http://127.0.0.1:")
        family = [psutil.Process(), *psutil.Process().children(recursive=True)]
        listening = [c.laddr.ip for p in family for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        assert len(listening) >= 2
        open_to_all = [ip for ip in listening if not ip.startswith("127.")]
        assert not open_to_all, "a worker listens beyond loopback"
    assert client.status == "closed"


def test_workers_keep_the_memory_of_arrays_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_"
    for mine, expected in ((None, str(64 << 20)), (99, "99")):
        for name in MALLOC:  # a cluster before may have left them in this process
            monkeypatch.delenv(name, raising=False)
        with dask.config.set({key: mine} if mine else {}), Cluster(ClusterSection(device="cpu")) as cluster:
            (found,) = cluster.client().run(lambda: dict(os.environ)).values()
        assert found["MALLOC_TRIM_THRESHOLD_"] == expected
        assert found["MALLOC_MMAP_THRESHOLD_"] == str(32 << 20)
    assert dask.config.get(key) == 65536, "Dask's own settings are left as they were"


def test_an_existing_scheduler_is_used_and_left_alone() -> None:
    with there_already(resources={"train": 1}) as there:
        with Cluster(ClusterSection(device="cpu", address=there.scheduler_address)) as cluster:
            assert cluster.client().submit(square, 3).result(timeout=30) == 9
        with Client(there.scheduler_address, timeout=5) as after:
            assert after.submit(square, 4).result(timeout=30) == 16


def test_workers_without_the_training_resource_are_refused() -> None:
    with there_already() as there:
        cluster = Cluster(ClusterSection(device="cpu", address=there.scheduler_address))
        with cluster, pytest.raises(ClusterError, match="--resources train=1"):
            cluster.client()


def test_a_scheduler_that_does_not_answer_is_an_error_in_time() -> None:
    with socket.socket() as s:  # bound and silent
        s.bind(("127.0.0.1", 0))
        s.listen()
        address = f"tcp://127.0.0.1:{s.getsockname()[1]}"
        cluster = Cluster(ClusterSection(device="cpu", address=address, timeout_s=1.5))
        with cluster, pytest.raises(ClusterError, match=r"no answer within 1\.5 s"):
            cluster.client()


@pytest.mark.parametrize(
    "greeting", [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0-x\r\n", bytes(64)]
)
def test_a_peer_that_is_no_scheduler_is_an_error(greeting: bytes) -> None:
    """Its first bytes are read as a size: of HTTP, 3.07 EiB."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            peer, _ = server.accept()
            with peer:
                peer.sendall(greeting)
                peer.recv(1)

        thread = threading.Thread(target=greet)
        thread.start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        try:
            with pytest.raises(ClusterError, match=f"scheduler at {address}, got an answer .* not in Dask's protocol"):
                Cluster(ClusterSection(device="cpu", address=address, timeout_s=5)).announce()
        finally:
            thread.join()


def test_the_address_of_a_worker_is_an_error() -> None:
    with there_already() as there:
        (worker,) = there.workers.values()
        with pytest.raises(ClusterError, match=r"expected a Dask scheduler at .*, got a Dask Worker"):
            Cluster(ClusterSection(device="cpu", address=worker.address)).announce()


def test_a_taken_dashboard_port_is_said_in_the_log(recwarn: pytest.WarningsRecorder) -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = f"127.0.0.1:{taken.getsockname()[1]}"
        section = ClusterSection(device="cpu", dashboard=wanted)
        with Cluster(section, lambda kind, **fields: said.append(f"{fields.get('level')}: {fields.get('text')}")) as it:
            used = str(it.client().dashboard_link)
    port = urlsplit(used).port
    assert f"warning: expected the dashboard at {wanted}, found that port taken; it got port {port}" in said
    assert f"127.0.0.1:{port}" != wanted
    assert not [w for w in recwarn if "Port" in str(w.message)]


def test_a_dashboard_on_another_machine_is_an_error() -> None:
    cluster = Cluster(ClusterSection(device="cpu", dashboard="192.0.2.1:8787"))  # an address for documentation
    with cluster, pytest.raises(ClusterError, match=r"dashboard at 192\.0\.2\.1:8787, got: .*--cluster\.dashboard"):
        cluster.client()


@pytest.mark.skipif(gpu_count() > 0, reason="this machine has a GPU")
def test_asking_for_a_gpu_that_is_not_there_is_an_error() -> None:
    with pytest.raises(DeviceError, match=r"cluster\.device auto or cpu"):
        Cluster(ClusterSection(device="gpu"))


@pytest.mark.parametrize(("visible", "count"), [("", 0), ("-1", 0), ("0", 1), ("1,2", 2), ("0,7", 1), (None, 4)])
def test_only_visible_gpus_count(monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int) -> None:
    """NVML stands in here as a module of four GPUs: this decides what CUDA_VISIBLE_DEVICES leaves of them."""
    nvml = types.ModuleType("pynvml")
    vars(nvml).update(nvmlInit=lambda: None, nvmlShutdown=lambda: None, nvmlDeviceGetCount=lambda: 4, NVMLError=OSError)
    nvml.__spec__ = importlib.machinery.ModuleSpec("pynvml", None)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_count() == count


def test_auto_says_once_what_it_chose() -> None:
    said: list[str] = []
    Cluster(ClusterSection(), lambda kind, **fields: said.append(str(fields.get("text")))).announce()
    assert len(said) == 1
    assert "device auto" in said[0]


def test_importing_the_cluster_touches_no_cuda() -> None:
    heavy = "{'cupy', 'cudf', 'rmm', 'torch', 'dask_cuda', 'numba.cuda'}"
    code = (
        f"import sys, pipeline.cluster; sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
