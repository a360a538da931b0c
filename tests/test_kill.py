"""The same outcomes after being ended at a random moment: SIGKILL, SIGTERM and SIGINT against the real command line."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from nocobench.results.files import is_temporary
from nocobench.results.record import RunRecord
from nocobench.results.store import RecordStore

PROGRAM = Path(__file__).resolve().parent.parent / "run_benchmark.py"
FEW, MANY = ("ncr",), ("npc", "ncr", "cca")
NEEDS_PROC = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers through /proc")


def start(results: Path, methods: Sequence[str]) -> subprocess.Popen[str]:
    """The command in a session of its own, with a checkpoint after every epoch."""
    grid = ("--noise", "0.4", "--seeds", "0", "1", "--epochs", "12", "--device", "cpu", "--workers", "1")
    words = ("--methods", *methods, *grid, "--checkpoint-every", "0", "--results", str(results))
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def finish(results: Path, methods: Sequence[str]) -> None:
    """Run to the end; nothing but records may be left."""
    process = start(results, methods)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    left = [path for path in results.rglob("*") if path.is_file() and not is_temporary(path)]
    assert not [path for path in left if path.suffix in (".tmp", ".pt", ".old") or "plans" in path.parts], left


def wait_for(process: subprocess.Popen[str], folder: Path, pattern: str) -> None:
    """Until a new file of this name, or a new version of it, appears somewhere below the folder."""

    def versions() -> set[tuple[Path, int]]:
        with contextlib.suppress(FileNotFoundError):
            return {(path, path.stat().st_mtime_ns) for path in folder.rglob(pattern)}
        return set()

    before = versions()
    while versions() <= before:
        assert process.poll() is None, "the run ended before it could be disturbed"
        time.sleep(0.01)


def kill_everything(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the command and its workers, which have sessions of their own."""
    pids = [process.pid]
    with contextlib.suppress(OSError):
        pids += map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    process.communicate()


def records(results: Path) -> list[RunRecord]:
    """All records; every file must be a whole one, of a finished run."""
    found = list(RecordStore(results / "runs").scan())
    assert [record for record in found if not isinstance(record, RunRecord) or record.status != "done"] == []
    return [record for record in found if isinstance(record, RunRecord)]


def outcomes(results: Path) -> dict[str, str]:
    """Outcome digests by cell."""
    return {record.cell_id: record.outcome_digest for record in records(results)}


def resumed(results: Path, method: str) -> list[tuple[int, ...]]:
    """Where the runs of a method went on from checkpoints."""
    return [record.circumstances.resumed_at for record in records(results) if record.cell.method == method]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Outcomes of a run that nobody disturbs."""
    results = tmp_path_factory.mktemp("undisturbed")
    finish(results, FEW)
    found = outcomes(results)
    assert len(found) == 2 * len(FEW)
    return found


@NEEDS_PROC
def test_killed_twice(undisturbed: dict[str, str], tmp_path: Path) -> None:
    """SIGKILL in the middle of training, and again as soon as the first record is there."""
    for pattern in ("*.pt", "seed*.json"):
        process = start(tmp_path, FEW)
        wait_for(process, tmp_path, pattern)
        kill_everything(process)
        assert outcomes(tmp_path).items() <= undisturbed.items()
    finish(tmp_path, FEW)
    assert outcomes(tmp_path) == undisturbed
    assert any(resumed(tmp_path, "ncr")), "the checkpoint was not used"


def test_asked_to_stop_twice(undisturbed: dict[str, str], tmp_path: Path) -> None:
    """SIGINT, going on, SIGTERM: each time exit code 130, how to go on, one checkpoint; in the end no trace of the plan."""
    plans = tmp_path / "plans"
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start(tmp_path, FEW)
        wait_for(process, tmp_path, "*.pt")
        os.kill(process.pid, number)
        output = process.communicate(timeout=60)[0]
        assert process.returncode == 130, output
        assert (
            "Interrupted. What is finished is kept; this goes on from there:\n  python run_benchmark.py --methods"
            in output
        )
        assert len(list((plans / "checkpoints").glob("*.pt"))) == 1
        assert not list(tmp_path.rglob("*.tmp"))
    finish(tmp_path, FEW)
    assert outcomes(tmp_path) == undisturbed
    assert {len(epochs) for epochs in resumed(tmp_path, "ncr")} == {2}


@pytest.fixture(scope="module")
def long_undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    """Outcomes, and how many seconds the run took."""
    results, started = tmp_path_factory.mktemp("long"), time.monotonic()
    finish(results, MANY)
    return outcomes(results), time.monotonic() - started


@NEEDS_PROC
@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_killed_at_a_random_moment(number: int, long_undisturbed: tuple[dict[str, str], float], tmp_path: Path) -> None:
    """Twenty moments spread from start-up to the last record; every fourth run is killed a second time."""
    expected, seconds = long_undisturbed
    draw = random.Random(number)
    moments = [seconds * (number + draw.random()) / 20] + [seconds * draw.random()] * (number % 4 == 0)
    for moment in moments:
        process = start(tmp_path, MANY)
        time.sleep(moment)
        kill_everything(process)
        assert outcomes(tmp_path).items() <= expected.items(), "what is there after a kill is whole and right"
    finish(tmp_path, MANY)
    assert outcomes(tmp_path) == expected
