"""``verify``: the same cells computed in several ways must have the same outcomes, byte for byte.

Nothing is written to the results; the records that exist are a further witness where they were made by today's source code.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..results.record import CellKey, RunRecord
from ..results.store import RecordStore
from . import commands
from .commands import Part, RunOptions
from .grid import count
from .local import Job, LocalExecutor, Summary, Worker
from .plan import runs_folder
from .progress import Display

# What a careless environment may hold; a worker's own settings have the last word.
FOREIGN = {
    "OMP_NUM_THREADS": "7",
    "MKL_NUM_THREADS": "5",
    "OPENBLAS_NUM_THREADS": "3",
    "PYTHONHASHSEED": "12345",
    "TZ": "Asia/Tokyo",
}
WIDTHS = (2, 3, 5)

Shards = Callable[[Part, RunOptions], list[tuple[CellKey, ...]]]


@dataclass(frozen=True)
class Way:
    """One way to compute all cells.

    Attributes:
        name: printed beside the digests.
        shards: the cells that are trained side by side.
        reverse: start with the last shard.
        interrupt: ask every worker to stop after its first epoch, then go on in new processes.
        environment: set outside the workers.
    """

    name: str
    shards: Shards
    reverse: bool = False
    interrupt: bool = False
    environment: Mapping[str, str] | None = None


def alone(part: Part, options: RunOptions) -> list[tuple[CellKey, ...]]:
    """Every cell in a worker of its own."""
    return [(cell,) for cell in part.cells]


def together(part: Part, options: RunOptions) -> list[tuple[CellKey, ...]]:
    """As wide as the protocol allows, to have as many neighbours as possible."""
    return list(commands.shards_of(part, options.results, 1))


def in_groups(width: int) -> Shards:
    """Shards of at most ``width`` cells of a method, the last cells of it first."""

    def shards(part: Part, options: RunOptions) -> list[tuple[CellKey, ...]]:
        cut = []
        for shard in together(part, options):
            cells = shard[::-1]
            cut += [cells[start : start + width] for start in range(0, len(cells), width)]
        return cut

    return shards


QUICK = (Way("alone", alone), Way("together", together))
THOROUGH = (
    *QUICK,
    *(Way(f"in shards of {width}, last first", in_groups(width), reverse=True) for width in WIDTHS),
    Way("interrupted and resumed", together, interrupt=True),
    Way("alone, after other thread settings", alone, environment=FOREIGN),
)


def verify(options: RunOptions, thorough: bool = False) -> int:
    """Compute every cell in several ways and compare the outcomes' digests.

    Args:
        options: the grid and the machine.
        thorough: all ways, else alone and side by side only.

    Returns:
        0 when all agree, else 1; 2 or 130 where a way could not be finished.

    Raises:
        ProtocolError, MethodError, DataError: found before anything is trained.
    """
    parts = commands.parts_of(options)
    for part in parts:
        commands.check_data(part.protocol, options.data_root)
        part.to_do = list(part.cells)
    cells = [cell for part in parts for cell in part.cells]
    ways = THOROUGH if thorough else QUICK
    found: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory(prefix="nocobench-verify-") as folder:
        for number, way in enumerate(ways, 1):
            print(f"computing {count(len(cells), 'cell')} {way.name} ({number} of {len(ways)}) ...", file=sys.stderr)
            own = replace(options, results=Path(folder) / str(number), force=False)
            summary = _compute(parts, own, way)
            commands.print_outcome(summary, options.command)
            if summary.exit_code in (2, 130):
                return summary.exit_code
            store = RecordStore(runs_folder(own.results))
            found[way.name] = commands.digests(store, cells)
            if way.interrupt:
                print(f"  {_resumed(store, cells)} of them went on from a checkpoint", file=sys.stderr)
    store = RecordStore(runs_folder(options.results))
    current = [cell for cell in cells if commands.state_of(cell, store) == "done"]
    found["on record"] = commands.digests(store, current)
    return _verdict(cells, [way.name for way in ways], found)


def _compute(parts: Sequence[Part], options: RunOptions, way: Way) -> Summary:
    device, places = commands.places(options)
    jobs = []
    for part in parts:
        plan = commands.plan_for(part, options, device, way.shards(part, options))
        path = plan.write()
        jobs += [Job(plan, path, number) for number in range(len(plan.shards))]
    jobs = jobs[::-1] if way.reverse else jobs
    with _environment(way.environment or {}):
        if way.interrupt:
            Interrupting(options.program, places, Display(jobs), commands.write_death).run(jobs)
        return commands.execute(jobs, options, places, [cell for part in parts for cell in part.cells])


class Interrupting(LocalExecutor):
    """Asks every worker, once, to stop when it has finished its first epoch."""

    def _receive(self, worker: Worker, line: str | None) -> None:
        super()._receive(worker, line)
        if line is not None and not worker.asked and '"event": "epoch"' in line:
            worker.asked = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.process.pid, signal.SIGTERM)


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _resumed(store: RecordStore, cells: Sequence[CellKey]) -> int:
    records = (store.read(cell) for cell in cells)
    return sum(isinstance(record, RunRecord) and bool(record.circumstances.resumed_at) for record in records)


def _verdict(cells: Sequence[CellKey], ways: Sequence[str], found: Mapping[str, Mapping[str, str]]) -> int:
    differing = missing = 0
    for cell in cells:
        seen = {how: digests[cell.cell_id] for how, digests in found.items() if cell.cell_id in digests}
        rate = "real noise" if cell.rate is None else f"noise {cell.rate:g}"
        name = f"{cell.method}@{cell.variant} on {cell.dataset} {rate} seed {cell.seed}"
        if not set(ways) <= seen.keys():
            missing += 1
            print(f"no result  {name}")
        elif len(set(seen.values())) > 1:
            differing += 1
            print(f"DIFFERENT  {name}: " + ", ".join(f"{how} {digest[:12]}" for how, digest in seen.items()))
        else:
            how = ", ".join([*seen][:2]) if len(ways) == 2 else f"{len(ways)} ways"
            print(f"same       {name}: {seen[ways[0]][:12]} ({how}{', on record' if 'on record' in seen else ''})")
    print(f"{count(len(cells), 'cell')}: {differing} different, {missing} without result")
    return 1 if differing or missing else 0
