"""A full disk and a read-only one: one sentence, nothing half written, and the rest goes on where it can."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from faults.harness import Forks, Grid, assert_clean, litter, outcomes, remount, small_disk
from faults.ledger import Ledger
from nocobench.results.store import check_store


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if "run_benchmark.py: error:" in line]


def fill(folder: Path, but: int = 0) -> Path:
    """Use up all space of the file system, except for so many bytes."""
    ballast = folder / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        free = shutil.disk_usage(folder).free - but
        file.write(bytes(max(free, 0)))
    return ballast


def test_disk_full_from_the_beginning(
    forks: Forks, grid: Grid, undisturbed: dict[str, str], tmp_path: Path, ledger: Ledger
) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        ballast = fill(disk)
        code, text = forks.run(grid.words(disk / "results"))
        assert code == 2, text
        (error,) = errors(text)
        assert f"results cannot be written to {disk / 'results'}" in error
        assert "No space left on device" in error
        assert "choose another folder with --results" in error
        assert litter(disk) == ["ballast"]
        ledger.fault("disk full from the beginning")
        ballast.unlink()
        assert forks.run(grid.words(disk / "results"))[0] == 0
        ledger.compare(undisturbed, outcomes(disk / "results"))
        assert_clean(disk / "results")


@pytest.mark.parametrize(
    "room", [20_000, *(pytest.param(n, marks=pytest.mark.slow) for n in range(8_000, 200_000, 12_000))]
)
def test_disk_that_becomes_full(
    room: int, forks: Forks, grid: Grid, undisturbed: dict[str, str], tmp_path: Path, ledger: Ledger
) -> None:
    """Some of plan, checkpoints, arrays and records fit; what does not is not there, and what fits is right."""
    with small_disk(tmp_path / "disk", "1m") as disk:
        results = disk / "results"
        ballast = fill(disk, room)
        code, text = forks.run(grid.words(results, "--workers", "2"))
        ledger.fault("disk full on the way")
        if code != 0:
            assert code == 2, text
            (error,) = errors(text)
            assert f"results cannot be written to {results}" in error
            assert "No space left on device" in error
            assert len(outcomes(results)) < len(undisturbed)
        assert outcomes(results).items() <= undisturbed.items()
        assert [problem for problem in check_store(results / "runs") if "has no record beside it" not in problem] == []
        assert not [path for path in litter(results) if path.endswith(".tmp")]
        ballast.unlink()
        code, text = forks.run(grid.words(results))
        assert code == 0, text
        ledger.compare(undisturbed, outcomes(results))
        assert_clean(results)


def test_no_room_for_checkpoints(
    forks: Forks, grid: Grid, undisturbed: dict[str, str], complete: Path, tmp_path: Path, ledger: Ledger
) -> None:
    """A checkpoint only saves time: the training goes on, and says so once."""
    with small_disk(tmp_path / "disk", "1m") as disk:
        results = disk / "results"
        (results / "plans").mkdir(parents=True)
        (results / "plans" / "checkpoints").write_text("a file where the folder should be")
        code, text = forks.run(grid.words(results))
        assert code == 0, text
        ledger.fault("checkpoints cannot be written")
        (warning,) = [line for line in text.splitlines() if "warning" in line]
        assert f"no checkpoint can be written to {results / 'plans' / 'checkpoints'}" in warning
        assert "the training goes on" in warning
        ledger.compare(undisturbed, outcomes(results))


def test_read_only_results(
    forks: Forks, grid: Grid, complete: Path, undisturbed: dict[str, str], tmp_path: Path, ledger: Ledger
) -> None:
    with small_disk(tmp_path / "disk", "8m", inodes=1000) as disk:
        results, empty = disk / "results", disk / "empty"
        shutil.copytree(complete, results)
        empty.mkdir()
        remount(disk, "ro")
        code, text = forks.run(grid.words(empty))
        assert code == 2, text
        (error,) = errors(text)
        assert f"results cannot be written to {empty} (Read-only file system)" in error
        ledger.fault("read-only results folder")
        # What is there can be read all the same, also by the command that would fill gaps.
        for words in (
            grid.words(results),
            ["tables", "--results", str(results)],
            ["results", "check", "--results", str(results)],
        ):
            code, text = forks.run(words)
            assert code == 0, text
        code, text = forks.run(["figures", "--kinds", "validation-curves", "--results", str(results)])
        assert code == 2, text
        (error,) = errors(text)
        assert f"files cannot be written to {results / 'figures'} (Read-only file system)" in error
        assert "choose another folder with --out" in error
        ledger.fault("read-only folder of figures")
        remount(disk, "rw")
        ledger.compare(undisturbed, outcomes(results))
        assert_clean(results)
        assert litter(empty) == []


def test_output_goes_to_a_full_disk(
    forks: Forks, grid: Grid, undisturbed: dict[str, str], tmp_path: Path, ledger: Ledger
) -> None:
    """``run_benchmark.py ... > /full/log``, where the records lie elsewhere."""
    with small_disk(tmp_path / "disk", "8k") as disk:
        results, log = tmp_path / "results", disk / "log"
        fill(disk)
        running = forks.start(grid.words(results), output=log)
        running.wait()
        ledger.fault("standard output and error on a full disk")
        assert outcomes(results).items() <= undisturbed.items()
        code, text = forks.run(grid.words(results))
        assert code == 0, text
        ledger.compare(undisturbed, outcomes(results))
        assert_clean(results)
