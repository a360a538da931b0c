"""A process that reads what might end it: it has little memory and little time, and is started again when it is gone."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import resource
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

MEGABYTE = 2**20
EXTRA = 400 * MEGABYTE  # of address space, beyond what the libraries take
SECONDS = 60.0


@dataclass(frozen=True)
class Reading:
    """What came of a file.

    Attributes:
        error: class of the error, empty where it was read.
        message: of the error.
        grown: megabytes by which the process has grown at most while it read this file.
    """

    error: str
    message: str
    grown: float


class Child:
    """Starts the process at the first question."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def read(self, how: str, path: Path, *more: Any) -> Reading:
        """Call a reader of :func:`readers` on a file.

        Raises:
            AssertionError: the process died, or has not answered in time.
        """
        process = self.process or self._start()
        assert process.stdin is not None
        process.stdin.write(json.dumps([how, str(path), more, os.getcwd()]) + "\n")
        process.stdin.flush()
        try:
            line = self.lines.get(timeout=SECONDS)
        except queue.Empty:
            self._end()
            raise AssertionError(f"{how} of {path}: no answer in {SECONDS:g} s") from None
        if not line:
            code = process.wait()
            self._end()
            raise AssertionError(f"{how} of {path} ended the process with {code}")
        return Reading(*json.loads(line))

    def _start(self) -> subprocess.Popen[str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.lines = queue.SimpleQueue()
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        threading.Thread(target=_pump, args=(self.process, self.lines), daemon=True).start()
        assert self.lines.get(timeout=120) == "ready\n"
        return self.process

    def _end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _pump(process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put("")


def readers() -> dict[str, Any]:
    """Readers of foreign files by name; each is called with a path."""
    import numpy as np
    from nocobench.datasets import files, matrices, noise, registry
    from nocobench.protocols import plan, yaml_files
    from nocobench.results import sidecar, store

    def index(path: Path) -> Any:
        return noise.realise("replay", "set", np.arange(6), 0.4, 0, file=str(path), key="key")

    return {
        "npy": files.read_npy,
        "npz": lambda path: files.read_npz(path, ["a"]),
        "lines": files.read_lines,
        "shapes": matrices.shapes,
        "matrices": lambda path: matrices.read_matrices(path, ["a", "b"], np.float32),
        "cells": lambda path: matrices.read_cells(path, "train", 1),
        "data set": lambda root, name: registry.load(name, root),
        "folder": lambda path: registry.load(f"{path}/"),
        "synthetic": lambda path, options: registry.load("synthetic", None, **options),
        "noise index": index,
        "sidecar": sidecar.read_sidecar,
        "results": store.check_store,
        "protocol": yaml_files.read_yaml,
        "plan": plan.read_plan,
    }


def _megabytes(what: str) -> float:
    """``VmRSS``, what the process has now, or ``VmHWM``, the most since the last reset."""
    with open("/proc/self/status") as file:
        return next(float(line.split()[1]) / 1024 for line in file if line.startswith(what))


def _reset_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _answer() -> None:
    """Answer questions until there are no more."""
    known = readers()
    from nocobench.datasets.types import DataError

    with contextlib.suppress(DataError):  # what is imported late
        known["matrices"](Path("/no/file.mat"))
    import h5py  # noqa: F401
    import scipy.io  # noqa: F401

    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + EXTRA, size + EXTRA))
    out = sys.stdout
    sys.stdout = sys.stderr
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        how, path, more, folder = json.loads(line)
        os.chdir(folder)
        _reset_peak()
        before = _megabytes("VmRSS")
        error = message = ""
        try:
            known[how](Path(path), *more)
        except Exception as problem:
            error, message = type(problem).__name__, str(problem)
        print(json.dumps([error, message[:1000], _megabytes("VmHWM") - before]), file=out, flush=True)


if __name__ == "__main__":
    _answer()
