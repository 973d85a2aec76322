"""A client as a process of its own, killed while it works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent


def killed_client(
    code: str, folder: Path, *words: object, last: str, each: Callable[[str, int], None] = lambda line, pid: None
) -> None:
    """Run a script in `folder` and kill it with SIGKILL when it prints the line `last`; the processes it started end.

    `each` gets every line up to then, and the id of the process.
    """
    script = folder / "client.py"
    script.write_text(code)
    command = [sys.executable, str(script), *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdout is not None
    timer = threading.Timer(60, process.kill)
    timer.start()
    children: list[psutil.Process] = []
    with process.stdout as said:
        for line in said:
            each(line.strip(), process.pid)
            if line.strip() == last:
                children = psutil.Process(process.pid).children(recursive=True)
                process.kill()
                break
        else:
            raise AssertionError(f"the client ended before it said {last!r}")
    timer.cancel()
    assert process.wait() == -signal.SIGKILL
    assert not psutil.wait_procs(children, timeout=20)[1], "a worker outlived its client"
