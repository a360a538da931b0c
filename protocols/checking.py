"""Commands that test: ``verify`` (same cells, same bytes), ``check METHOD`` (the contract), ``results check`` (the records)."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..results.record import CellKey
from ..results.store import RecordStore, check_store
from . import commands
from .commands import Part, RunOptions
from .grid import count
from .local import Job, Summary
from .plan import Plan, runs_folder


def verify(options: RunOptions) -> int:
    """Compute every cell twice, alone and side by side with others, and compare the outcomes' digests.

    The records that exist are a third witness where they were made by today's source code. Returns 0 when all agree, else 1.

    Raises:
        ProtocolError, MethodError, DataError: found before anything is trained.
    """
    parts = commands.parts_of(options)
    for part in parts:
        commands.check_data(part.protocol, options.data_root)
        part.to_do = list(part.cells)
    cells = [cell for part in parts for cell in part.cells]
    found: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory(prefix="nocobench-verify-") as folder:
        for how in ("alone", "together"):
            print(f"computing {count(len(cells), 'cell')} {how} ...", file=sys.stderr)
            own = replace(options, results=Path(folder) / how, force=False)
            summary = _compute(parts, own, alone=how == "alone")
            commands.print_outcome(summary, options.command)
            if summary.exit_code in (2, 130):
                return summary.exit_code
            found[how] = commands.digests(RecordStore(runs_folder(own.results)), cells)
    store = RecordStore(runs_folder(options.results))
    current = [cell for cell in cells if commands.state_of(cell, store) == "done"]
    found["on record"] = commands.digests(store, current)
    return _verdict(cells, found)


def check(method: str, plugins: Sequence[Path]) -> int:
    """Run the contract tests on one method; 0 when all pass, else 1.

    Raises:
        MethodError: unknown method, or one that does not import.
    """
    commands.load_plugins(plugins)
    from . import oracle  # noqa: F401  (registers the one method behind the firewall)
    from .contract_checks import check_method

    results = check_method(method)
    for result in results:
        mark = "ok    " if result.ok else "FAILED"
        print(f"{mark} {result.name}{f': {result.detail}' if result.detail else ''}", flush=True)
    failed = sum(not result.ok for result in results)
    print(f"{method}: {count(len(results), 'check')}, {failed} failed")
    return 1 if failed else 0


def check_results(results: Path) -> int:
    """Examine all records of a results folder; 0 when all is well, else 1."""
    runs = runs_folder(results)
    if not runs.is_dir():
        print(f"{runs} does not exist: no records yet")
        return 0
    problems = check_store(runs)
    for problem in problems:
        print(problem)
    records = sum(1 for _ in RecordStore(runs).scan(sidecars=False))
    print(f"{count(records, 'record')} in {runs}: {count(len(problems), 'problem') if problems else 'all is well'}")
    return 1 if problems else 0


def _compute(parts: Sequence[Part], options: RunOptions, alone: bool) -> Summary:
    device, places = commands.places(options)
    if alone:
        jobs = []
        for part in parts:
            plan = commands.plan_for(part, options, device, [(cell,) for cell in part.cells])
            jobs += _jobs(plan)
    else:
        # One worker's shards: as wide as the protocol allows, to have as many neighbours as possible.
        jobs = commands.plan_jobs(parts, options, device, 1)
    return commands.execute(jobs, options, places, [cell for part in parts for cell in part.cells])


def _jobs(plan: Plan) -> list[Job]:
    path = plan.write()
    return [Job(plan, path, number) for number in range(len(plan.shards))]


def _verdict(cells: Sequence[CellKey], found: Mapping[str, Mapping[str, str]]) -> int:
    differing = missing = 0
    for cell in cells:
        seen = {how: digests[cell.cell_id] for how, digests in found.items() if cell.cell_id in digests}
        rate = "real noise" if cell.rate is None else f"noise {cell.rate:g}"
        name = f"{cell.method}@{cell.variant} on {cell.dataset} {rate} seed {cell.seed}"
        if not {"alone", "together"} <= seen.keys():
            missing += 1
            print(f"no result  {name}")
        elif len(set(seen.values())) > 1:
            differing += 1
            print(f"DIFFERENT  {name}: " + ", ".join(f"{how} {digest[:12]}" for how, digest in seen.items()))
        else:
            print(f"same       {name}: {seen['alone'][:12]} ({', '.join(seen)})")
    print(f"{count(len(cells), 'cell')}: {differing} different, {missing} without result")
    return 1 if differing or missing else 0
