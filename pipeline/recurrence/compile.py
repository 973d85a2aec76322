"""Turn plain kernels into machine code, once: cached on disk in a folder of this user's alone, one process at a time.

A kernel reaches the driver as an address. Handing over compiled functions would cost 0.1 ms each and call under the
interpreter lock, and compile the driver anew for every set.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.compiler import Compiler
from numba.extending import intrinsic

from .parts import parts_digest, with_parts
from .plan import Kernel, Longs

X_CTS = types.Array(types.float64, 3, "C")
P = types.Array(types.float64, 1, "C")
STATE_KS = types.Array(types.float64, 2, "C")
SIGNATURE = types.void(X_CTS, P, STATE_KS, X_CTS, types.int64)
_threads = threading.RLock()
_parts: dict[tuple[bool, bool, str], Any] = {}


class NoAlias(Compiler):  # type: ignore[misc]
    """Compile for arrays that never overlap, which the drivers promise: without it LLVM guards every inner loop with
    overlap checks.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.state.flags.noalias = True


def _call(context: Any, address: Any, x: Any, p: Any, state: Any, out: Any, first: Any) -> Any:
    """Call a compiled kernel by its address."""
    signature = types.void(types.int64, X_CTS, P, STATE_KS, X_CTS, types.int64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = [context.get_value_type(a) for a in signature.args[1:]]
        function = ir.FunctionType(context.get_value_type(types.none), kinds)
        context.call_function_pointer(builder, builder.inttoptr(args[0], function.as_pointer()), args[1:])
        return context.get_dummy_value()

    return signature, generate


call = intrinsic(_call)


def cache_folder() -> Path:
    """Return the folder of compiled code: NUMBA_CACHE_DIR, else a private one below the user's cache folder or the
    temporary one.

    Code is executed from here, so a folder that others may write to is not used.
    """
    if os.environ.get("NUMBA_CACHE_DIR"):
        return Path(os.environ["NUMBA_CACHE_DIR"])
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for folder in (
        home / "krx-research-pipeline" / "numba",
        Path(tempfile.gettempdir()) / f"krx-research-pipeline-{os.getuid()}",
    ):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            found = folder.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and os.access(folder, os.W_OK | os.X_OK):
                folder.chmod(0o700)
                return folder
    return Path(tempfile.mkdtemp(prefix="krx-research-pipeline-"))


_folder = functools.cache(cache_folder)


@contextlib.contextmanager
def _alone(below: str = "") -> Iterator[None]:
    """Let one thread of a process, and one process a folder, compile at a time, with its cache in this folder below the
    common one: two that write a cold cache at once can each spoil the other's index.
    """
    with _threads:
        folder = _folder() / below
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        before = numba.config.CACHE_DIR
        with (folder / "compile.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Read when a function is decorated; other users of Numba keep theirs.
            numba.config.CACHE_DIR = str(folder)
            try:
                yield
            finally:
                numba.config.CACHE_DIR = before


@functools.cache
def compiled(
    function: Callable[..., None], signature: Any = SIGNATURE, alias: bool = False, inline: bool = False
) -> Any:
    """Return `function` compiled for one signature; the second time, also in another process, it comes from disk.

    alias : arrays may overlap. inline : its parts become part of it, for small ones that are given many arrays: each
    call would hand over every field of each of them.

    Numba looks only at the file of the function itself for changes, so the cache of one that has parts lies in a
    folder named by their code.
    """
    options = {} if alias else {"pipeline_class": NoAlias}
    with _alone(parts_digest(function) + inline * "-inline"):
        plain = with_parts(function, functools.partial(_part, alias, inline))
        return numba.njit(signature, nogil=True, error_model="numpy", cache=True, **options)(plain)


def _part(alias: bool, inline: bool, part: Callable[..., Any]) -> Any:
    """Return a part for a compiler, one for all kernels that call it: its name tells its code."""
    key = alias, inline, part.__qualname__
    if key not in _parts:
        options = {} if alias else {"pipeline_class": NoAlias}
        _parts[key] = numba.njit(nogil=True, error_model="numpy", forceinline=inline, **options)(part)
    return _parts[key]


@functools.cache
def _address(kernel: Kernel) -> int:
    result = compiled(kernel).get_compile_result(SIGNATURE)
    return int(result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name))


def addresses(kernels: Sequence[Kernel]) -> Longs:
    """Compile what is not compiled yet and return the kernels' addresses, (len(kernels),) int64; valid in this
    process only.
    """
    return np.array([_address(k) for k in kernels], np.int64)
