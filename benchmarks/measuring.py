"""Seconds and memory of calls in this process or in fresh ones, and the machine they ran on.

    python benchmarks/measuring.py MODULE FUNCTION '{"argument": 1}'

prints what the function returns as JSON; :func:`fresh` runs this in the environment that the suite gives its workers.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Times:
    """Seconds of every call, and by how many MB the process grew at most while they ran."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_extra_mb: float = 0.0

    def add(self, wall: float, cpu: float) -> None:
        self.wall.append(wall)
        self.cpu.append(cpu)


@contextlib.contextmanager
def growing(times: Times) -> Iterator[None]:
    """Note how far the resident memory rises inside above where it was before (Linux: exact; elsewhere over the peak of the process)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident now
    before = peak_memory()
    yield
    times.peak_extra_mb = max(times.peak_extra_mb, peak_memory() - before)


def peak_memory() -> float:
    """Largest resident memory of this process so far (on Linux since the last reset), MB of 10^6 bytes."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found[1]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def warm_up() -> None:
    """Load what torch loads at its first product, sort and gradient (some hundred MB of modules): import, not work."""
    import torch

    matrix = torch.ones(16, 16)
    torch.sort((matrix @ matrix).flatten())
    torch.func.grad(lambda x: (x * x).sum())(matrix)


def timed_calls(call: Callable[[], Any], repeat: int) -> tuple[Times, Any]:
    """Every call's seconds, and what the last one gave."""
    times, result = Times(), None
    with growing(times):
        for _ in range(repeat):
            result = None
            started = time.perf_counter(), time.process_time()
            result = call()
            times.add(time.perf_counter() - started[0], time.process_time() - started[1])
    return times, result


class Clock:
    """CPU and wall seconds of the epochs of a training, and the CPU seconds of their evaluations among them.

    Give it to a task, which tells it of every evaluation, and to ``on_event`` of the engine. An epoch lasts from the end of the evaluation
    before it to its ``epoch`` event; ``first`` evaluations come before training (one for each of the runs side by side, and another one
    for methods that test several networks).
    """

    def __init__(self, times: Times, first: int = 1) -> None:
        self.times, self.first = times, first
        self.evaluate: list[float] = []
        self.evaluations = 0
        self._epoch = self._score = (0.0, 0.0)
        self._evaluating = 0.0

    def score_begins(self) -> None:
        self._score = _now()

    def score_ends(self) -> None:
        self.evaluations += 1
        self._evaluating += _now()[1] - self._score[1]
        if self.evaluations == self.first:
            self._begin()

    def on_event(self, event: Mapping[str, Any]) -> None:
        if event.get("event") != "epoch":
            return
        now = _now()
        self.times.add(now[0] - self._epoch[0], now[1] - self._epoch[1])
        self.evaluate.append(self._evaluating)
        self._begin()

    def check(self, epochs: int) -> None:
        """Raises RuntimeError where epochs or evaluations are not what the times above take them for."""
        if len(self.times.cpu) != epochs or self.evaluations < self.first + epochs:
            raise RuntimeError(
                f"{len(self.times.cpu)} epochs with {self.evaluations} evaluations instead of {epochs} after {self.first}"
            )

    def _begin(self) -> None:
        self._epoch, self._evaluating = _now(), 0.0


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def fresh(module: str, function: str, /, threads: int = 1, cuda: str | None = None, **arguments: Any) -> Any:
    """What a function of this folder returns in a fresh process with one thread; ``cuda``: the devices that it sees.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, str(Path(__file__).resolve()), module, function, json.dumps(arguments)]
    done = subprocess.run(
        command, env=os.environ | worker_environment(threads, cuda), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{module}.{function}({arguments}) failed:\n{done.stdout[-500:]}{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def worker_environment(threads: int = 1, cuda: str | None = None) -> dict[str, str]:
    """As the suite starts its workers: threads, and an allocator that keeps its memory."""
    from nocobench.protocols.worker import environment

    return environment(threads, cuda)


def facts() -> dict[str, Any]:
    """The machine and what it runs."""
    import numpy
    import torch

    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load": [round(value, 1) for value in os.getloadavg()],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        **fresh("measuring", "rates"),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _cpu() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def rates(size: int = 2048, megabytes: int = 256) -> dict[str, float]:
    """Best of five: a matrix product of ``size`` cubed in GFLOP/s, and a copy in GB/s (bytes read and written)."""
    import torch

    a, b, c = (torch.rand(size, size) for _ in range(3))
    source = torch.zeros(megabytes * 2**18)
    target = torch.zeros_like(source)
    product, copy = (best_of(5, call) for call in (lambda: torch.mm(a, b, out=c), lambda: target.copy_(source)))
    return {
        "gemm_gflops": round(2 * size**3 / product / 1e9, 1),
        "copy_gb_per_s": round(2 * source.nbytes / copy / 1e9, 1),
    }


def best_of(repeats: int, call: Callable[[], Any]) -> float:
    """Least CPU seconds of a call."""
    found = []
    for _ in range(repeats):
        started = time.process_time()
        call()
        found.append(time.process_time() - started)
    return min(found)


def main() -> None:
    sys.modules["measuring"] = sys.modules["__main__"]  # one module, not two
    module, function, arguments = sys.argv[1:]
    print(json.dumps(getattr(importlib.import_module(module), function)(**json.loads(arguments))))


if __name__ == "__main__":
    main()
