"""A worker that dies, a run that diverges, and several commands on one grid."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from faults.harness import Forks, Grid, assert_clean, outcomes
from faults.ledger import Ledger
from nocobench.results.record import RunRecord
from nocobench.results.sidecar import sidecar_path
from nocobench.results.store import RecordStore

FIRST_SHARD: dict[str, Any] = {"role": "worker", "shard": 0}


def failures(results: Path) -> dict[tuple[str, int], str]:
    """Reasons of failed records by method and seed."""
    records = [record for record in RecordStore(results / "runs").scan() if isinstance(record, RunRecord)]
    return {(r.cell.method, r.cell.seed): r.reason for r in records if r.status == "failed"}


def retry(forks: Forks, grid: Grid, results: Path, expected: dict[str, str], ledger: Ledger) -> None:
    code, text = forks.run(grid.words(results, "--retry", "failed"))
    assert code == 0, text
    ledger.compare(expected, outcomes(results))
    assert_clean(results)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_dead_worker_costs_its_shard_only(
    number: signal.Signals, forks: Forks, grid: Grid, undisturbed: dict[str, str], tmp_path: Path, ledger: Ledger
) -> None:
    """SIGKILL is what a machine out of memory sends."""
    aim = FIRST_SHARD | {"point": "nocobench.protocols.batched:BatchedDriver.step", "call": 20, "signal": number}
    code, text = forks.run(grid.words(tmp_path), aim)
    assert code == 1, text
    ledger.fault(f"a worker died of {number.name}")
    reasons = failures(tmp_path)
    assert reasons.keys() == {("clip", 0), ("clip", 1)}
    assert all(f"the worker was ended by {number.name}" in reason for reason in reasons.values())
    assert all(("out of memory" in reason) == (number == signal.SIGKILL) for reason in reasons.values())
    assert len(outcomes(tmp_path)) == 2, "the other shard is finished"
    assert outcomes(tmp_path).items() <= undisturbed.items()
    code, text = forks.run(grid.words(tmp_path))
    assert code == 0
    assert "2 failed (kept; --retry failed runs them again)" in text
    retry(forks, grid, tmp_path, undisturbed, ledger)


def test_a_worker_killed_while_its_failed_cells_are_run_again(
    forks: Forks, grid: Grid, undisturbed: dict[str, str], tmp_path: Path, ledger: Ledger
) -> None:
    """Between its two records; so is the command. Plans of both runs are gone in the end."""
    step = FIRST_SHARD | {"point": "nocobench.protocols.batched:BatchedDriver.step", "signal": signal.SIGKILL}
    assert forks.run(grid.words(tmp_path), step)[0] == 1
    ledger.fault("a worker died of SIGKILL")
    written = {"role": "worker", "point": "nocobench.results.store:RecordStore.write", "when": "after"}
    code, _ = forks.run(grid.words(tmp_path, "--retry", "failed"), written | {"signal": signal.SIGKILL, "to": "all"})
    assert code == -signal.SIGKILL
    ledger.fault("SIGKILL during the time between two records")
    assert failures(tmp_path).keys() == {("clip", 1)}
    retry(forks, grid, tmp_path, undisturbed, ledger)


@pytest.mark.parametrize("slot", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_run_that_diverges_does_not_touch_its_neighbour(
    slot: int, forks: Forks, grid: Grid, complete: Path, undisturbed: dict[str, str], tmp_path: Path, ledger: Ledger
) -> None:
    aim = FIRST_SHARD | {"point": "nocobench.protocols.training:ShardTraining._epoch", "call": 2, "slot": slot}
    code, text = forks.run(grid.words(tmp_path), aim)
    assert code == 1, text
    ledger.fault("NaN in one run of a shard")
    ((cell, reason),) = failures(tmp_path).items()
    assert cell == ("clip", slot)
    assert "non-finite" in reason
    assert outcomes(tmp_path).items() <= undisturbed.items()
    assert len(outcomes(tmp_path)) == len(undisturbed) - 1
    for record in RecordStore(tmp_path / "runs").scan():
        assert isinstance(record, RunRecord)
        if record.status == "done":
            here, there = (RecordStore(root / "runs").path(record.cell) for root in (tmp_path, complete))
            assert sidecar_path(here).read_bytes() == sidecar_path(there).read_bytes()
    retry(forks, grid, tmp_path, undisturbed, ledger)


@pytest.mark.parametrize(
    ("commands", "workers"),
    [(2, 1), (4, 1), pytest.param(2, 2, marks=pytest.mark.slow), pytest.param(4, 2, marks=pytest.mark.slow)],
)
def test_several_commands_on_one_grid(
    commands: int, workers: int, forks: Forks, grid: Grid, undisturbed: dict[str, str], tmp_path: Path, ledger: Ledger
) -> None:
    words = grid.words(tmp_path, "--workers", str(workers))
    running = [forks.start(words) for _ in range(commands)]
    for one in running:
        assert one.wait() == 0, one.text
        assert "warning" not in one.text
    ledger.fault(f"{commands} commands at once")
    ledger.compare(undisturbed, outcomes(tmp_path))
    assert_clean(tmp_path)


def test_one_of_two_commands_is_killed(
    forks: Forks, grid: Grid, undisturbed: dict[str, str], tmp_path: Path, ledger: Ledger
) -> None:
    """The plan of both stays as long as one of them needs it."""
    aim = FIRST_SHARD | {"point": "half", "under": "/runs/", "call": 2, "signal": signal.SIGKILL, "to": "all"}
    killed = forks.start(grid.words(tmp_path), aim)
    step = {"point": "nocobench.protocols.batched:BatchedDriver.step", "call": 5, "until_gone": killed.pid}
    other = forks.start(grid.words(tmp_path), FIRST_SHARD | step)
    assert killed.wait() == -signal.SIGKILL, killed.text
    assert other.wait() == 0, other.text
    ledger.fault("SIGKILL of one of two commands at once")
    ledger.compare(undisturbed, outcomes(tmp_path))
    code, text = forks.run(grid.words(tmp_path))
    assert code == 0, text
    assert_clean(tmp_path)
