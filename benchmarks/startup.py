"""How long commands take that train nothing, what of it are imports, and whether torch is among them.

Every command is a process of its own under ``python -X importtime``; imports are counted by what each module takes itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "run_benchmark.py"
LISTS = ("methods", "datasets", "protocols", "noise", "runs")
COMMANDS = (("--help",), *(("list", what) for what in LISTS), ("tables", "--help"))
_LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")


@dataclass(frozen=True)
class Start:
    """Seconds of a command: on the clock, of the processor, of its imports; ``torch``: imported."""

    wall: float
    cpu: float
    imports: float
    torch: bool


def start(words: Sequence[str]) -> Start:
    """Run a command of the suite.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-X", "importtime", str(PROGRAM), *words]
    before, started = _children(), time.perf_counter()
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    wall, cpu = time.perf_counter() - started, _children() - before
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if not _LINE.match(line)]
        raise RuntimeError(f"{' '.join(words)[:200]} ended with code {done.returncode}: {' '.join(said)[-500:]}")
    lines = _LINE.findall(done.stderr)
    imports = sum(int(own) for own, _ in lines) / 1e6
    return Start(wall, cpu, imports, any(name == "torch" for _, name in lines))


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextlib.contextmanager
def planning(n_cells: int) -> Iterator[list[str]]:
    """The words of a dry run over so many cells (two methods, five rates) in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        seeds = [str(seed) for seed in range(n_cells // 10)]
        rates = ["0", "0.2", "0.4", "0.6", "0.8"]
        yield [
            "--methods",
            "clip",
            "npc",
            "--noise",
            *rates,
            "--seeds",
            *seeds,
            "--dry-run",
            "--device",
            "cpu",
            "--results",
            folder,
        ]


@contextlib.contextmanager
def records(count: int) -> Iterator[list[str]]:
    """The words that print a table of so many records, made of the reference ones under further seeds."""
    import records as many

    with tempfile.TemporaryDirectory() as folder:
        many.clone(many.REFERENCE, Path(folder) / "runs", count)
        yield ["tables", "--protocol", "digits-pairs", "--results", folder]
