"""Commands that test: ``check METHOD`` (the contract), ``results check`` (the records)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..results.store import RecordStore, check_store
from . import commands, worker
from .grid import count
from .plan import runs_folder
from .protocol import ProtocolError


def check(method: str, plugins: Sequence[Path], device: str = "cpu") -> int:
    """Run the contract tests on one method; 0 when all pass, else 1.

    Raises:
        MethodError: unknown method, or one that does not import.
        ProtocolError: no such device here.
    """
    commands.load_plugins(plugins)
    if device == "cuda":
        os.environ |= worker.environment(1, os.environ.get("CUDA_VISIBLE_DEVICES", "0"))
        _refuse_without_cuda()
    from . import oracle  # noqa: F401  (registers the one method behind the firewall)
    from .contract_checks import check_method

    results = check_method(method, device=device)
    for result in results:
        mark = "ok    " if result.ok else "FAILED"
        print(f"{mark} {result.name}{f': {result.detail}' if result.detail else ''}", flush=True)
    failed = sum(not result.ok for result in results)
    print(f"{method}: {count(len(results), 'check')}, {failed} failed")
    return 1 if failed else 0


def _refuse_without_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        raise ProtocolError("torch sees no CUDA device here; take --device cpu")


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
