"""What made a result: the digest of the code behind it, the versions of the packages, the machine, the commit."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("storage", "training", "pipeline")
# A new version of these may change a result.
NUMERIC = ("numpy", "numba", "llvmlite", "pandas", "pyarrow", "deltalake", "torch", "optuna")
REPORTED = (
    *NUMERIC,
    "dask",
    "distributed",
    "deltalake",
    "pydantic",
    "aiohttp",
    "cudf-cu13",
    "cupy-cuda13x",
    "dask-cuda",
)


def code_digest(*modules: str) -> str:
    """Return a digest of modules, of everything of ours that they import, and of the data files that these name.

    A data file or folder counts when a string constant of the module is its name in the module's folder. Imports under
    `TYPE_CHECKING` do not run and do not count. Comments and docstrings do count: a formula may stand in them.
    """
    total = hashlib.sha256()
    for path in sorted(_closure(modules)):
        total.update(str(path.relative_to(ROOT)).encode())
        total.update(path.read_bytes())
    return total.hexdigest()[:32]


def _closure(modules: Iterable[str]) -> set[Path]:
    found: set[Path] = set()
    waiting = list(modules)
    seen = set()
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if name in seen or path is None:
            continue
        seen.add(name)
        imported, files = _parsed(path, name)
        found |= {path, *files}
        waiting += imported
        if "." in name:
            waiting.append(name.rsplit(".", 1)[0])
    return found


def _file(module: str) -> Path | None:
    if module.split(".")[0] not in PACKAGES:
        return None
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.exists():
            return path
    return None


_parsing = threading.Lock()  # ast.parse of CPython 3.11 fails now and then on several threads at once


@functools.cache
def _parsed(path: Path, module: str) -> tuple[list[str], list[Path]]:
    with _parsing:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module if path.name == "__init__.py" else module.rsplit(".", 1)[0]
    imported = [name for node in _running(tree) for name in _names(node, package)]
    words = {
        n.value
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and 0 < len(n.value) < 80
    }
    files = []
    for word in words:
        if "\n" in word or word.startswith(("/", ".")):
            continue
        beside = path.parent / word
        if beside.is_file() and beside.suffix != ".py":
            files.append(beside)
        elif beside.is_dir() and not (beside / "__init__.py").exists():
            files += [p for p in beside.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    return imported, files


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk a module without what stands under `if TYPE_CHECKING`."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield from _running(child)


def _names(node: ast.AST, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        parent = package.split(".")
        base = (
            ".".join([*parent[: len(parent) - node.level + 1], node.module or ""]).strip(".")
            if node.level
            else node.module or ""
        )
        return [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return []


def instruction_sets() -> list[str]:
    """Return the vector instruction sets of this CPU that PyTorch chooses its kernels by; another one gives other bits.

    ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA overrule the hardware and so belong to the answer.
    """
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        flags = {platform.machine()}
    forced = [
        f"{name}={os.environ[name]}" for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA") if name in os.environ
    ]
    return (
        sorted(flags & {"avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "asimd", "sve", "bf16"}) + forced
    )


def versions(names: tuple[str, ...] = NUMERIC) -> dict[str, str]:
    """Return the version of Python and of those packages that are installed."""
    out = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in names:
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return out


def environment(device: str) -> dict[str, Any]:
    """Describe what a run ran on; no host name, user or environment variable is in it."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "device": device,
        "packages": versions(REPORTED),
        "commit": commit(),
    }


def commit() -> str:
    """Return the git commit of this checkout, with '+' when files differ from it; empty outside a checkout."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(*words: str) -> str:
    out = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True, timeout=10)
    return out.stdout.strip()
