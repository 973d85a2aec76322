"""Device -> Dask client: a LocalCluster, a LocalCUDACluster or an existing scheduler, started when first needed.

GPUs are counted by NVML in the moment of asking: touching CUDA in this process before the cluster starts breaks
Dask-CUDA. The client process never holds a CUDA context.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import importlib.util
import logging
import os
import signal
import tempfile
import threading
import warnings
from typing import Any, Literal

import dask
from distributed import Client, LocalCluster, WorkerPlugin
from distributed.core import rpc

from storage.emit import Emit, silent
from storage.section import Section, setting

RESOURCES = {"train": 1}


class DeviceError(Exception):
    """A device that was asked for is not there."""


class ClusterError(Exception):
    """A scheduler that cannot be reached or started."""


class ClusterSection(Section):
    """Where the work runs."""

    device: Literal["auto", "cpu", "gpu"] = setting("auto", "cpu, gpu, or auto: gpu when NVML sees one")
    address: str = setting(
        "", "address of an existing Dask scheduler, tcp://host:port; empty = start one here", runtime=True
    )
    max_workers: int = setting(
        0, "CPU worker processes, or GPUs used; 0 = one process (CPU), all GPUs", ge=0, le=1024, runtime=True
    )
    threads: int = setting(0, "threads a CPU worker; 0 = all cores shared evenly", ge=0, le=1024, runtime=True)
    dashboard: str = setting("127.0.0.1:0", "address of the dashboard; port 0 = any free", runtime=True)
    timeout_s: float = setting(15.0, "patience for the scheduler's answer", unit="s", gt=0, runtime=True)
    device_memory: float = setting(
        0.8, "share of each GPU's memory in the RMM pool", unit="ratio", gt=0, le=0.95, runtime=True
    )


# Dask's own trim threshold switches glibc's growing thresholds off: every array above 128 KiB would be mapped, cleared
# page by page and given back, which made columns a third slower. These are the values that glibc grows to by itself.
ENVIRONMENT = "distributed.nanny.pre-spawn-environ"
DASK_MALLOC = {"MALLOC_TRIM_THRESHOLD_": 65536}
MALLOC = {"MALLOC_MMAP_THRESHOLD_": 32 << 20, "MALLOC_TRIM_THRESHOLD_": 64 << 20}


def gpu_count() -> int:
    """Count the GPUs that NVML reports now and CUDA_VISIBLE_DEVICES leaves, without touching CUDA; 0 without a
    driver.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    named = None if visible is None else [name.strip() for name in visible.split(",")]
    if named is not None and named[0] in ("", "-1"):
        return 0
    if importlib.util.find_spec("pynvml") is None:
        return 0
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        there = int(pynvml.nvmlDeviceGetCount())
        if named is None:
            return there
        return len([name for name in named if not name.isdigit() or int(name) < there])
    finally:
        pynvml.nvmlShutdown()


class Cluster:
    """Answer which device there is, and give a client on first use; `close` ends only what was started here."""

    def __init__(self, section: ClusterSection, emit: Emit = silent) -> None:
        self.section = section
        self.emit = emit
        self._stack = contextlib.ExitStack()
        self._client: Client | None = None
        gpus = gpu_count() if section.device != "cpu" else 0
        if section.device == "gpu" and gpus == 0:
            raise DeviceError(
                "expected a GPU because cluster.device is 'gpu', got none from NVML (nvidia-ml-py with a driver); "
                "install the driver and the [gpu] extra, or use --cluster.device auto or cpu"
            )
        self.device: Literal["cpu", "gpu"] = "gpu" if gpus else "cpu"
        self.backend: Literal["pandas", "cudf"] = "cudf" if gpus else "pandas"
        self._gpus = gpus

    def announce(self) -> None:
        """Say what `auto` chose, and find out whether a scheduler that was named answers. Raises ClusterError."""
        if self.section.device == "auto":
            text = f"device auto: {self._gpus} GPU(s) visible, running on {self.device}"
            self.emit("log", level="info", text=text)
        if self.section.address:
            self._probe()

    @property
    def started(self) -> bool:
        return self._client is not None

    @property
    def cores(self) -> int:
        return self.section.threads or len(os.sched_getaffinity(0))

    def client(self) -> Client:
        """Return the client; the first call starts or finds the cluster."""
        if self._client is None:
            dask.config.set({"dataframe.backend": self.backend})
            self._client = self._connect() if self.section.address else self._start()
            self.emit("log", level="info", text=f"Dask dashboard: {self._client.dashboard_link}")
            self.emit("cluster", dashboard=str(self._client.dashboard_link), device=self.device)
        return self._client

    def _connect(self) -> Client:
        where = self.section.address
        self._probe()
        client: Client = self._stack.enter_context(Client(where, timeout=self.section.timeout_s))
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        if not any("train" in w["resources"] for w in workers):
            raise ClusterError(
                f"expected workers with the resource 'train' at {where}, got {len(workers)} without it; "
                "start at least one with 'dask worker ADDRESS --resources train=1'"
            )
        return client

    def _probe(self) -> None:
        where = self.section.address
        try:
            kind = asyncio.run(_answers(where, self.section.timeout_s))
            got = "" if kind == "Scheduler" else f"a Dask {kind}"
            cause: Exception | None = None
        except (OSError, TimeoutError, ValueError) as error:
            why = f" ({error})" if str(error) else ""
            got, cause = f"no answer within {self.section.timeout_s:g} s{why}", error
        except Exception as error:  # the first bytes of a stranger are read as sizes: any error may come of that
            got, cause = "an answer that is not in Dask's protocol: something else listens there", error
        if got:
            raise ClusterError(
                f"expected a Dask scheduler at {where}, got {got}; "
                "start one with 'dask scheduler', or leave cluster.address empty to start a local one"
            ) from cause

    def _start(self) -> Client:
        scratch = self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix="pipeline-dask-", ignore_cleanup_errors=True)
        )
        common: dict[str, Any] = {
            "host": "127.0.0.1",
            "dashboard_address": self.section.dashboard,
            "local_directory": scratch,
            "resources": RESOURCES,
        }
        given = dask.config.get(ENVIRONMENT, {})
        malloc = {
            f"{ENVIRONMENT}.{name}": size
            for name, size in MALLOC.items()
            if given.get(name) == DASK_MALLOC.get(name)  # what the user has set stays
        }
        with warnings.catch_warnings(), dask.config.set(malloc):
            warnings.filterwarnings("ignore", "Port .* is already in use")  # said below, in the log
            try:
                cluster = self._stack.enter_context(self._local(common))
            except RuntimeError as error:
                if not isinstance(error.__cause__, OSError):
                    raise
                raise ClusterError(
                    f"expected to start a Dask cluster with its dashboard at {self.section.dashboard}, got: {error}; "
                    "give an address of this machine with --cluster.dashboard"
                ) from error
        client: Client = self._stack.enter_context(Client(cluster, timeout=self.section.timeout_s))
        client.register_plugin(_Quiet())
        wanted, used = self.section.dashboard.rpartition(":")[2], cluster.scheduler_info["services"].get("dashboard")
        if wanted not in ("", "0", str(used)):
            text = f"expected the dashboard at {self.section.dashboard}, found that port taken; it got port {used}"
            self.emit("log", level="warning", text=text)
        return client

    def _local(self, common: dict[str, Any]) -> Any:
        if self.device == "gpu":
            from dask_cuda import LocalCUDACluster

            # workers inherit it before their context is made; with fewer queues kernels on streams wait for another
            os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")
            return LocalCUDACluster(
                n_workers=self.section.max_workers or self._gpus,
                rmm_pool_size=self.section.device_memory,
                rmm_allocator_external_lib_list="torch,cupy",
                **common,
            )
        workers = self.section.max_workers or 1
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=max(1, self.cores // workers),
            processes=True,
            memory_limit=0,
            **common,
        )

    def close(self) -> None:
        self._client = None
        self._stack.close()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


async def _answers(address: str, timeout_s: float) -> str:
    """Ask a peer what it is: Scheduler, Worker or Nanny. A Client would wait for ever for one that accepts the
    connection and says nothing.
    """
    async with asyncio.timeout(timeout_s):
        async with rpc(address) as peer:
            return str((await peer.identity())["type"])


class _Quiet(WorkerPlugin):
    """Leave errors and interrupts to the client: a task's error is raised again and logged there, Ctrl-C ends it
    there. Ends without going through all objects once more, which takes seconds after torch and Numba.
    """

    name = "quiet"

    def setup(self, worker: Any) -> None:
        logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)
        atexit.register(gc.freeze)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
