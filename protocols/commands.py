"""The main job: from options to plans, from plans to records."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..datasets import label_noise, noise, registry
from ..results.record import CellKey, RunRecord
from ..results.store import Existing, RecordStore, StoreError, changed_sources
from . import grid, known_methods
from .grid import MethodChoice, count
from .local import Job, LocalExecutor, Summary, places_for
from .noise_files import check_noise_files
from .plan import Plan, held, remove_finished, runs_folder, unfinished_shards
from .plugins import load_plugins
from .progress import display_for, in_words
from .protocol import DEFAULT, Protocol, ProtocolError, load_protocol, nearest, protocol_names, with_overrides
from .source_parts import source_digests

MOST_WORKERS = 1024


@dataclass(frozen=True)
class RunOptions:
    """What the command line asks for; names as its options, ``command`` is what was typed, ``program`` where it lies."""

    methods: Sequence[str]
    command: str
    program: Path
    results: Path
    noise: Sequence[float] | None = None
    datasets: Sequence[str] = ()
    protocol: str | None = None
    seeds: Sequence[int] | None = None
    plugin: Sequence[Path] = ()
    epochs: int | None = None
    batch_size: int | None = None
    track: str | None = None
    selection: str | None = None
    noise_model: str | None = None
    bits: Sequence[int] | None = None
    database: str | None = None
    database_codes: str | None = None
    dry_run: bool = False
    only_cached: bool = False
    retry: str | None = None
    stale: str = "show"
    force: bool = False
    fail_fast: bool = False
    device: str = "auto"
    workers: int | None = None
    checkpoint_every: float = 300.0
    quiet: bool = False
    data_root: Path | None = None


@dataclass
class Part:
    """The cells of one protocol: all that are wanted, those to do, and what is known of the others.

    ``as_written`` is the protocol with its own data set and noise model: what all cells of its folder have in common.
    """

    protocol: Protocol
    as_written: Protocol
    overrides: dict[str, Any]
    cells: list[CellKey]
    to_do: list[CellKey] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)


def run(options: RunOptions) -> tuple[int, list[CellKey]]:
    """Run what is missing of the grid.

    Returns:
        the exit code, and all cells of the grid, finished or not.

    Raises:
        ProtocolError, MethodError, DataError, StoreError: found before anything is trained.
    """
    store = RecordStore(runs_folder(options.results))
    parts = [survey(part, store, options) for part in parts_of(options)]
    cells = [cell for part in parts for cell in part.cells]
    for part in parts:
        if part.to_do:
            check_data(part.protocol, options.data_root)
            check_noise_files(part.protocol, [cell.rate for cell in part.to_do])
    device, slots = places(options)
    jobs = plan_jobs(parts, options, device, len(slots))
    costs = Costs(store) if jobs else None
    print(bill(parts, jobs, costs, len(slots), device))
    if options.dry_run or options.only_cached or not jobs:
        if not (jobs or options.dry_run or options.only_cached):
            remove_finished(options.results, cells)  # of a run that was killed between its last record and its end
        return 0, cells
    for part in parts:
        protocol = part.as_written
        store.write_snapshot(protocol.name, protocol.version, part.overrides, protocol.model_dump(mode="json"))
    before = digests(store, cells) if options.force else {}
    summary = execute(_longest_first(jobs, costs), options, slots, cells)
    print_outcome(summary, options.command)
    if options.force:
        print(compared(before, digests(store, cells)))
    return summary.exit_code, cells


def parts_of(options: RunOptions) -> list[Part]:
    """Every protocol that the options name, with its cells; everything is checked here."""
    if not 0 <= options.checkpoint_every < float("inf"):
        raise ProtocolError(f"--checkpoint-every {options.checkpoint_every} is no number of seconds; give 0 or more")
    load_plugins(options.plugin)
    parts = []
    for name, dataset in _protocols(options):
        as_written, overrides = with_overrides(
            load_protocol(name),
            epochs=options.epochs,
            batch_size=options.batch_size,
            track=options.track,
            selection=options.selection,
            database=options.database,
            database_codes=options.database_codes,
        )
        bits = None if options.bits is None else tuple(options.bits)
        protocol, _ = with_overrides(as_written, dataset=_absolute(dataset), noise_model=options.noise_model, bits=bits)
        _check_names(protocol)
        methods = grid.parse_methods(options.methods, protocol.task)
        _check_recipes(protocol, methods)
        cells = grid.cells(protocol, overrides, methods, options.noise, options.seeds)
        parts.append(Part(protocol, as_written, overrides, cells))
    return parts


def survey(part: Part, store: RecordStore, options: RunOptions) -> Part:
    """Decide which cells are to do."""
    for cell in part.cells:
        state = state_of(cell, store)
        part.states[state] += 1
        again = options.force or state in ("missing", "broken")
        again |= state in ("failed", "timeout") and options.retry == "failed"
        again |= state == "stale" and options.stale == "rerun"
        if again and not options.only_cached:
            part.to_do.append(cell)
    return part


def state_of(cell: CellKey, store: RecordStore) -> str:
    """The store's state, or ``stale`` where the record was made by other source code than today's."""
    try:
        record = store.read(cell)
    except StoreError:
        return "broken"
    if record is None:
        return "missing"
    return "stale" if is_stale(record) else record.status


def is_stale(record: RunRecord) -> bool:
    """Whether a finished record was made by other source code than today's; the others keep no sources."""
    cell = record.cell
    return record.outcome is not None and bool(changed_sources(record, sources_today(cell.method, cell.task)))


@functools.cache
def sources_today(method: str, task: str) -> dict[str, str]:
    """Digests of the code that makes a record of this method."""
    return source_digests(known_methods.facts(method).source, task)


def check_data(protocol: Protocol, data_root: Path | None) -> None:
    """Load the data once here: what is missing or damaged must be known before anything is trained.

    Raises:
        DataError: missing or unusable.
        ProtocolError: noise is to be added to pairs of which nobody knows which are right.
    """
    dataset = registry.load(protocol.dataset.name, data_root, **protocol.dataset.options)
    if dataset.has_real_noise and protocol.noise.model != "none":
        raise ProtocolError(
            f"data set {dataset.name!r} is noisy by nature, so nobody could say which pairs {protocol.noise.model!r} noise makes wrong; "
            "give --noise-model none and no --noise, or take a protocol with real noise"
        )


def plan_jobs(parts: Sequence[Part], options: RunOptions, device: str, workers: int) -> list[Job]:
    """Write one plan per protocol with something to do (none under ``--dry-run``) and return its shards."""
    jobs = []
    for part in parts:
        if not part.to_do:
            continue
        plan = plan_for(part, options, device, shards_of(part, options.results, workers))
        path = plan.path() if options.dry_run else plan.write()
        jobs += [Job(plan, path, number) for number in range(len(plan.shards))]
    return jobs


def plan_for(part: Part, options: RunOptions, device: str, shards: Sequence[tuple[CellKey, ...]]) -> Plan:
    """The plan of these shards."""
    return Plan(
        protocol=part.protocol,
        overrides=part.overrides,
        shards=tuple(shards),
        data_root=None if options.data_root is None else str(options.data_root.expanduser().resolve()),
        results=str(options.results.expanduser().resolve()),
        plugins=tuple(str(path.expanduser().resolve()) for path in options.plugin),
        device=device,
        checkpoint_every=options.checkpoint_every,
        existing=_existing(options),
        command=options.command,
    )


def execute(jobs: Sequence[Job], options: RunOptions, slots: Sequence[str | None], cells: Sequence[CellKey]) -> Summary:
    """Run the jobs on this machine; plans that are done are removed. ``cells`` are those that all have results if all goes well."""
    with held([job.plan for job in jobs]), display_for(jobs, options.quiet) as display:
        executor = LocalExecutor(options.program, slots, display, write_death, options.fail_fast)
        summary = executor.run(jobs)
    if summary.exit_code == 0:
        remove_finished(options.results, cells)
    return summary


def write_death(job: Job, lost: Sequence[CellKey], reason: str) -> None:
    """``failed`` records for the cells that a dead worker has not finished; an old result is not touched."""
    from ..methods import registry as methods
    from . import oracle  # noqa: F401  (registers the one method behind the firewall)
    from .recording import Recorder

    store = RecordStore(job.plan.runs, job.plan.existing)
    entry = methods.get(job.cells[0].method)
    recorder = Recorder(store, entry, job.plan.protocol, job.plan.device, job.plan.command, lambda event: None)
    recorder.failed([cell for cell in lost if store.state(cell) != "done"], reason, "")


class Costs:
    """Seconds that earlier cells took, by protocol, data set and method."""

    def __init__(self, store: RecordStore) -> None:
        taken: dict[tuple[str, ...], list[float]] = {}
        for record in store.scan(sidecars=False):
            if isinstance(record, RunRecord) and record.status == "done":
                taken.setdefault(_kind(record.cell), []).append(sum(record.circumstances.seconds.values()))
        self.mean = {kind: sum(seconds) / len(seconds) for kind, seconds in taken.items()}

    def of(self, cells: Sequence[CellKey]) -> float | None:
        """Seconds for these cells of one method, or None where no such cell has been run."""
        each = self.mean.get(_kind(cells[0]))
        return None if each is None else each * len(cells)


def bill(parts: Sequence[Part], jobs: Sequence[Job], costs: Costs | None, workers: int, device: str) -> str:
    """What is asked for, what is there, what will be done and how long it may take."""
    lines = []
    for part in parts:
        changed = ", ".join(f"{key} {value}" for key, value in part.overrides.items())
        lines.append(
            f"protocol {part.protocol.name} v{part.protocol.version} on {part.protocol.dataset.name}"
            + (f" (changed: {changed})" if changed else "")
        )
        notes = {
            "failed": "kept; --retry failed runs them again",
            "timeout": "kept; --retry failed runs them again",
            "stale": "made by older source code; --stale rerun",
            "broken": "computed again, what is there is kept as .old; `results check` says what is wrong",
        }
        found = [
            f"{number} {state.replace('_', ' ')}" + (f" ({notes[state]})" if state in notes else "")
            for state, number in sorted(part.states.items())
        ]
        lines.append(f"  {count(len(part.cells), 'cell')}: {', '.join(found)}; {len(part.to_do)} to do")
    if jobs:
        busy = min(workers, len(jobs))
        lines.append(f"{count(len(jobs), 'shard')} on {device}, {busy} at once; {_time(jobs, costs, busy)}")
    return "\n".join(lines)


def print_outcome(summary: Summary, command: str) -> None:
    """What failed, what else a person should know, and how to go on."""
    for message in summary.warnings:
        print(f"run_benchmark.py: warning: {message}", file=sys.stderr)
    for message in dict.fromkeys(summary.errors):
        print(f"run_benchmark.py: error: {message}", file=sys.stderr)
    if summary.failed:
        print(f"{count(len(summary.failed), 'cell')} failed:", file=sys.stderr)
        for cell, reason in summary.failed.values():
            rate = "" if cell.rate is None else f" noise {cell.rate:g}"
            print(f"  {cell.method}@{cell.variant} on {cell.dataset}{rate} seed {cell.seed}: {reason}", file=sys.stderr)
        print("They are kept as failed records; `--retry failed` runs them again.", file=sys.stderr)
    if summary.interrupted:
        print(f"Interrupted. What is finished is kept; this goes on from there:\n  {command}", file=sys.stderr)


def digests(store: RecordStore, cells: Sequence[CellKey]) -> dict[str, str]:
    """Outcome digests of the finished ones of these cells, by cell id."""
    found = {}
    for cell in cells:
        with contextlib.suppress(StoreError):
            record = store.read(cell)
            if record is not None and record.status == "done":
                found[cell.cell_id] = record.outcome_digest
    return found


def compared(before: dict[str, str], after: dict[str, str]) -> str:
    """After ``--force``: whether the same cells gave the same numbers."""
    both = before.keys() & after.keys()
    different = sum(before[cell] != after[cell] for cell in both)
    if not both:
        return "nothing to compare: none of these cells had a result before"
    verdict = "all outcomes are the same" if not different else f"{count(different, 'outcome')} differ"
    return f"{count(len(both), 'cell')} computed again: {verdict}; the old records are kept beside the new ones (.old)"


def _protocols(options: RunOptions) -> list[tuple[str, str | None]]:
    """(protocol, data set that replaces its own or None), one for each data set asked for."""
    if not options.datasets:
        return [(options.protocol or DEFAULT, None)]
    if len(set(options.datasets)) < len(options.datasets):
        raise ProtocolError("a data set is given twice; name every data set once")
    if options.protocol is not None:
        return [(options.protocol, dataset) for dataset in options.datasets]
    made_for = {load_protocol(name).dataset.name: name for name in protocol_names()}
    return [(made_for.get(dataset, DEFAULT), dataset) for dataset in options.datasets]


def _absolute(dataset: str | None) -> str | None:
    """A folder by its whole path, because workers may start elsewhere; a name as it is."""
    return str(Path(dataset).expanduser().resolve()) if dataset is not None and registry.is_path(dataset) else dataset


def _check_names(protocol: Protocol) -> None:
    name, model = protocol.dataset.name, protocol.noise.model
    if registry.is_path(name) and Path(name).name in registry.names():
        raise ProtocolError(f"the folder {name} has the name of a known data set; rename it, records are kept under it")
    known = noise.names() if protocol.task == "pair-retrieval" else label_noise.names()
    if model not in known:
        raise ProtocolError(f"unknown noise model {model!r} for the task {protocol.task!r}{nearest(model, known)}")


def _check_recipes(protocol: Protocol, methods: Sequence[MethodChoice]) -> None:
    for name, _ in methods:
        if protocol.track == "author-recipe" and not known_methods.facts(name).has_recipe:
            from .setup import budget_of

            budget_of(protocol, known_methods.entry(name).cls)


def places(options: RunOptions) -> tuple[str, list[str | None]]:
    """The device of the plan and a place for each worker."""
    if options.workers is not None and not 1 <= options.workers <= MOST_WORKERS:
        raise ProtocolError(f"--workers {options.workers} is no number of processes; give 1 to {MOST_WORKERS:,}")
    if options.device == "cpu" or (options.device == "auto" and not _may_have_cuda()):
        return places_for("cpu", options.workers, 0)
    import torch

    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = options.device if options.device != "auto" else "cuda" if devices else "cpu"
    return places_for(device, options.workers, devices)


def _may_have_cuda() -> bool:
    """Whether torch, which takes seconds to import, must be asked for devices: not on Linux without a driver of one."""
    return sys.platform != "linux" or any(Path(f"/dev/{name}").exists() for name in ("nvidiactl", "dxg", "kfd"))


def shards_of(part: Part, results: Path, workers: int) -> tuple[tuple[CellKey, ...], ...]:
    begun = unfinished_shards(results, part.protocol, part.overrides, part.to_do)
    planned = {cell.cell_id for shard in begun for cell in shard}
    rest = [cell for cell in part.to_do if cell.cell_id not in planned]
    fresh = grid.shards(rest, part.protocol.numerics.width, workers - len(begun))
    return (*begun, *(tuple(shard) for shard in fresh))


def _longest_first(jobs: Sequence[Job], costs: Costs | None) -> list[Job]:
    """Longest first, so that no long one starts last; unknown ones before all, because they may be long."""
    if costs is None:
        return list(jobs)
    return sorted(jobs, key=lambda job: -(costs.of(job.cells) or float("inf")))


def _time(jobs: Sequence[Job], costs: Costs | None, workers: int) -> str:
    times = [costs.of(job.cells) if costs else None for job in jobs]
    known = [time for time in times if time is not None]
    if not known:
        return "time unknown (no such cell has been run yet)"
    more = "" if len(known) == len(times) else f" and {count(len(times) - len(known), 'shard')} of unknown time"
    return f"about {in_words(sum(known) / workers)}{more}, going by earlier cells"


def _kind(cell: CellKey) -> tuple[str, ...]:
    changes = ",".join(f"{key}={value}" for key, value in sorted(cell.overrides.items()))
    return (cell.protocol, cell.dataset, cell.method, cell.variant, changes)


def _existing(options: RunOptions) -> Existing:
    if options.force or options.stale == "rerun":
        return "force"
    return "retry" if options.retry else "keep"
