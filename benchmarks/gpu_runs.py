"""Shards on a CUDA device, each for a fresh process: digests, seconds, memory, and what failed."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import suite_runs
import torch
from nocobench.methods import registry as methods
from nocobench.protocols import batched, engine
from nocobench.protocols.company import Company
from nocobench.protocols.contract_checks import cells_of
from nocobench.protocols.observe import SignalLog
from nocobench.results.record import RunRecord
from nocobench.results.store import RecordStore


def shard(
    method: str,
    size: dict[str, Any],
    folder: str,
    device: str,
    places: Sequence[int] = (0,),
    n_epochs: int = 1,
    log: bool = True,
    company: bool = True,
    **changes: Any,
) -> dict[str, Any]:
    """Train a shard and say what came out.

    Args:
        method: registered name; its first variant is taken.
        size: options of the synthetic data, one of ``suite_runs.SIZES``.
        folder: where the data are kept between processes.
        device: ``cuda`` or ``cpu``.
        places: which cells of the grid (rate by rate, twenty seeds each) stand in the shard, in this order.
        log: False leaves the log of weights and losses out; the records then lack it.
        company: False trains a lone run without its copy, to see whether it needs one.
        changes: ``hidden``, ``batch_size``, ``small``, see ``suite_runs.protocol_of``.

    Returns:
        ``digests`` by place, ``failed`` reasons, ``epochs`` in seconds on the clock (all but the first, evaluation included),
        ``peak_mb`` on the device (0 on a CPU), ``weights`` per run.
    """
    protocol = suite_runs.protocol_of(size, n_epochs, **changes)
    suite_runs.data(size, folder)
    variant = next(iter(methods.get(method).cls.variants))
    grid = cells_of(protocol, method, variant, suite_runs.RATES, range(20))
    cells = [grid[place] for place in places]
    ends: list[float] = []

    def on_event(event: Mapping[str, Any]) -> None:
        if event.get("event") == "epoch":
            _wait(device)
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as results, _without(log, company):
        store = RecordStore(Path(results) / "runs")
        engine.run_shard(
            cells, protocol, store, data_root=None, device=device, checkpoint_dir=Path(results), checkpoint_every=1e9,
            command=suite_runs.NAME, on_event=on_event, stop=lambda: False,
        )  # fmt: skip
        found = {record.cell_id: record for record in store.scan() if isinstance(record, RunRecord)}
    records = [found[cell.cell_id] for cell in cells]
    done = [record.outcome for record in records if record.outcome is not None]
    return {
        "digests": [record.outcome_digest for record in records],
        "failed": [record.reason for record in records if record.status == "failed"],
        "epochs": [end - start for start, end in pairwise(ends)],
        "peak_mb": torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else 0.0,
        "weights": done[0].parameters if done else None,
    }


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


@contextlib.contextmanager
def _without(log: bool, company: bool) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if not log:
            stack.enter_context(mock.patch.object(SignalLog, "write", return_value=None))
        if not company:
            stack.enter_context(mock.patch.object(batched, "Company", _Alone))
        yield


class _Alone(Company):
    """No copy, whatever the device."""

    def map(self, mapped: Any, stacks: tuple[Any, ...], name: str) -> Any:
        return mapped(*stacks)


def kind() -> dict[str, Any]:
    """Which devices there are."""
    return {
        "devices": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
    }
