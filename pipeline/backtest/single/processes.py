"""Run combinations on processes that look at one block of shared memory: nothing is pickled for a task but the layout
of the block, once for each chunk.

Threads are faster (they share everything and start at once); this is here for machines where a process holds only one
core, and so that the two can be compared.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from pipeline.strategies.declare import Strategy, StrategyError
from pipeline.strategies.step import written_at

from .chunks import NOTHING, Task
from .driver import runner
from .figures import Raw

Array = npt.NDArray[Any]
BATCH = 10  # combinations that a process takes at once
ALIGN = 64


class Place(NamedTuple):
    """Say where an array lies in the block."""

    offset: int
    shape: tuple[int, ...]
    kind: str

    def view(self, memory: SharedMemory) -> Array:
        return np.ndarray(self.shape, self.kind, memory.buf, self.offset)


class Processes:
    """Run tasks on processes. batch : combinations that one takes at once. Raises StrategyError when one of them
    dies.
    """

    def __init__(self, strategy: Strategy, count: int, batch: int = BATCH) -> None:
        self.count, self.batch = count, batch
        self._strategy = strategy
        runner(strategy.step)  # compiled once, before processes read it from disk, and what is wrong is said here

    def __enter__(self) -> Self:
        self._check_step()
        context = multiprocessing.get_context("forkserver")
        self._next = context.Value("q", 0)
        self._workers: list[tuple[Any, Connection]] = []
        for _ in range(self.count):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, self._next, self._strategy, self.batch), daemon=True)
            process.start()
            there.close()
            self._workers.append((process, here))
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for process, pipe in self._workers:
            pipe.close()
            if kind is not None:  # what they are at is of no use
                process.terminate()
        for process, _pipe in self._workers:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()

    def _check_step(self) -> None:
        """Refuse a step that another process cannot import by its name."""
        step: Any = self._strategy.step
        home: Any = sys.modules.get(step.__module__)
        interactive = step.__module__ == "__main__" and not Path(getattr(home, "__file__", "")).is_file()
        if interactive or getattr(home, step.__qualname__, None) is not step:
            raise StrategyError(
                f"expected the step of strategy '{self._strategy.name}' at the top of a file for executor='process', "
                f"got {step.__qualname__} in {written_at(step)}; move it to a file, or use executor='thread'"
            )

    def run(self, task: Task, blocks: int, moved: Callable[[int], None]) -> Raw:
        """Trade all combinations of a task; `moved` hears how many are done."""
        count = len(task.at_CJ)
        outs = Raw.empty(count, blocks)
        arrays = [x for x in task if isinstance(x, np.ndarray)]
        places, size = _laid_out([*arrays, *outs])
        memory = SharedMemory(create=True, size=size)
        try:
            for array, place in zip(arrays, places):
                place.view(memory)[...] = array
            self._next.value = 0
            numbers = [None if isinstance(x, np.ndarray) else int(x) for x in task]
            for process, pipe in self._workers:
                self._send(process, pipe, (memory.name, places, numbers, count))
            self._finish(count, moved)
            return Raw(*(place.view(memory).copy() for place in places[len(arrays) :]))
        finally:
            memory.close()
            memory.unlink()

    def _send(self, process: Any, pipe: Connection, message: Any) -> None:
        try:
            pipe.send(message)
        except OSError as error:
            raise _died(process) from error

    def _finish(self, count: int, moved: Callable[[int], None]) -> None:
        waiting: dict[Any, Any] = {pipe: process for process, pipe in self._workers}
        told = 0
        while waiting:
            pipe: Any
            for pipe in wait(list(waiting), 0.2):
                try:
                    answer = pipe.recv()
                except (EOFError, ConnectionError) as error:
                    raise _died(waiting[pipe]) from error
                if answer:
                    raise StrategyError(answer)
                del waiting[pipe]
            # Without its lock: a process that was killed may hold it.
            done = min(self._next.get_obj().value, count) if waiting else count
            moved(done - told)
            told = done


def _died(process: Any) -> StrategyError:
    process.join(1)
    return StrategyError(
        f"expected process {process.pid} to finish its combinations, it ended with code {process.exitcode} (-9: "
        "killed, often "
        "for memory; 1: often a script that does not start its work under `if __name__ == '__main__':`); run again "
        "with fewer processes or executor='thread'"
    )


def _laid_out(arrays: list[Array]) -> tuple[list[Place], int]:
    places, offset = [], 0
    for array in arrays:
        places.append(Place(offset, array.shape, array.dtype.str))
        offset += -(-array.nbytes // ALIGN) * ALIGN
    return places, max(offset, 1)


def _serve(pipe: Connection, following: Any, strategy: Strategy, batch: int) -> None:
    """Work on blocks as they come until the pipe is closed; Ctrl-C is for the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run = runner(strategy.step)
    while True:
        try:
            name, places, numbers, count = pipe.recv()
        except EOFError:
            return
        memory = SharedMemory(name=name)
        views = iter([place.view(memory) for place in places])
        task = [next(views) if number is None else number for number in numbers]
        outs = list(views)
        try:
            while True:
                with following.get_lock():
                    low = following.value
                    following.value = low + batch
                if low >= count:
                    break
                run(*task, low, min(low + batch, count), *outs, *NOTHING)
            pipe.send("")
        except StrategyError as error:
            pipe.send(str(error))
        finally:
            del task, outs, views
            memory.close()
