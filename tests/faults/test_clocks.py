"""The clock on the wall jumps by years, forward and backward; files carry dates of another century."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.harness import Forks, Grid, assert_clean, outcomes
from faults.ledger import Ledger
from nocobench.datasets import cache
from nocobench.results.record import RunRecord
from nocobench.results.store import RecordStore

YEAR = 365.25 * 86400
JUMPS = {
    "forward": [0.0, 30 * YEAR, 150 * YEAR],
    "backward": [0.0, -10 * YEAR, -40 * YEAR],
    "to 1970": [-100 * YEAR],
    "to and fro": [5 * YEAR, -5 * YEAR],
}


@pytest.mark.parametrize(
    "jump", ["forward", *(pytest.param(j, marks=pytest.mark.slow) for j in ("backward", "to 1970", "to and fro"))]
)
def test_a_clock_that_jumps(
    jump: str, forks: Forks, grid: Grid, undisturbed: dict[str, str], tmp_path: Path, ledger: Ledger
) -> None:
    """Stopped with the clock right, gone on with under a wrong one, and the dates of all files changed in between."""
    stop: dict[str, Any] = {"role": "worker", "shard": 0, "point": "nocobench.protocols.batched:BatchedDriver.step"}
    code, text = forks.run(grid.words(tmp_path), stop | {"call": 12, "signal": signal.SIGTERM, "to": "command"})
    assert code == 130, text
    assert list(tmp_path.rglob("*.pt"))
    for number, path in enumerate(sorted(tmp_path.rglob("*"))):
        date = max(path.stat().st_mtime + JUMPS[jump][number % len(JUMPS[jump])], 0)
        os.utime(path, (date, date))
    code, text = forks.run(grid.words(tmp_path), {"clock": JUMPS[jump]})
    assert code == 0, text
    ledger.fault(f"clock jumps {jump}")
    ledger.compare(undisturbed, outcomes(tmp_path))
    assert_clean(tmp_path)
    records = [record for record in RecordStore(tmp_path / "runs").scan() if isinstance(record, RunRecord)]
    assert any(record.circumstances.resumed_at for record in records), "the checkpoint was used, whatever its date"
    assert all(seconds >= 0 for record in records for seconds in record.circumstances.seconds.values())


def test_derived_features_are_kept_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    """A clock without battery stands at 1970, which no zip file can say; and a process was killed while it wrote the same features."""
    local = time.localtime
    monkeypatch.setenv("NOCOBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "localtime", lambda seconds=None: local(0.0))
    path = cache.cache_file("features", {})
    (tmp_path / f"{path.stem}abc.part").write_bytes(b"half")
    wanted = np.arange(6.0).reshape(2, 3)
    for compute in (lambda: {"train": wanted}, lambda: {}):  # the second time it comes from the file
        assert np.array_equal(cache.cached("features", {}, ["train"], compute)["train"], wanted)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    ledger.fault("clock stands at 1970 while features are kept")


@pytest.mark.parametrize(
    ("every", "jump", "written"),
    [("1000", "forward", False), pytest.param("0", "backward", True, marks=pytest.mark.slow)],
)
def test_checkpoints_do_not_follow_the_wall(
    every: str,
    jump: str,
    written: bool,
    forks: Forks,
    grid: Grid,
    undisturbed: dict[str, str],
    tmp_path: Path,
    ledger: Ledger,
) -> None:
    """A jump by years is no reason for a checkpoint, and none against one."""
    kill: dict[str, Any] = {
        "role": "worker",
        "shard": 0,
        "point": "nocobench.protocols.training:ShardTraining._write_records",
    }
    both = kill | {"signal": signal.SIGKILL, "to": "all", "clock": JUMPS[jump]}
    code, text = forks.run(grid.words(tmp_path, "--checkpoint-every", every), both)
    assert code == -signal.SIGKILL, text
    ledger.fault(f"clock jumps {jump}")
    assert bool(list(tmp_path.rglob("shard-*.pt"))) == written
    code, text = forks.run(grid.words(tmp_path))
    assert code == 0, text
    ledger.compare(undisturbed, outcomes(tmp_path))
    assert_clean(tmp_path)
