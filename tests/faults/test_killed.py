"""Ended in the middle of something, by a kill that nobody can catch or by a request to stop; then the same command again."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from faults.harness import Commands, Forks, Grid, Runner, Running, assert_clean, outcomes
from faults.ledger import Ledger

INTERRUPTED = 130
TASKS, STORE = "nocobench.protocols.tasks:PairRetrieval", "nocobench.results.store:RecordStore"

# What is going on, and the call at which the process is ended. The trained method is shard 0.
WORKER: dict[str, Any] = {"role": "worker", "shard": 0}
PHASES: dict[str, dict[str, Any]] = {
    "data preparation by the command": {"role": "command", "point": "nocobench.datasets.registry:load"},
    "data preparation": WORKER | {"point": f"{TASKS}.prepare", "when": "after"},
    "training": WORKER | {"point": "nocobench.protocols.batched:BatchedDriver.step", "call": 11},
    "writing of a checkpoint": WORKER | {"point": "half", "under": "/checkpoints/", "call": 2},
    "evaluation": WORKER | {"point": f"{TASKS}.score", "call": 2},
    "writing of arrays": WORKER | {"point": "half", "under": "/runs/", "call": 1},
    "writing of a record": WORKER | {"point": "half", "under": "/runs/", "call": 2},
    "the time between two records": WORKER | {"point": f"{STORE}.write", "when": "after"},
}


# A worker that is asked to stop ends after the epoch, of which there are six; nothing is cut in half, and a shard that is being written is
# finished. It is asked in this order.
ASKED: dict[str, dict[str, Any]] = {
    "data preparation by the command": PHASES["data preparation by the command"],
    "data preparation": PHASES["data preparation"],
    "training": PHASES["training"] | {"call": 3},
    "evaluation": PHASES["evaluation"],
    "writing of a checkpoint": WORKER | {"point": "nocobench.protocols.checkpoint:_write"},
    "writing of arrays": WORKER | {"point": "nocobench.results.store:to_bytes"},
    "writing of a record": WORKER
    | {"point": "nocobench.results.store:_to_bytes"},  # of the second shard: the first is done by now
}


def aimed(phase: str, number: int) -> dict[str, Any]:
    """To the command and its worker, like the end of a machine, or of a job in a cluster."""
    fault = (PHASES if number == signal.SIGKILL else ASKED)[phase]
    return fault | {"signal": number, "to": "self" if fault["role"] == "command" else "all"}


def finish(runner: Runner, words: list[str], results: Path, expected: dict[str, str], ledger: Ledger) -> None:
    """Nobody disturbs the last run: the same outcomes, and no trace of what was before."""
    code, text = runner.run(words)
    assert code == 0, text
    ledger.compare(expected, outcomes(results))
    assert_clean(results)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_ended_in_one_phase_after_the_other(
    number: signal.Signals, forks: Forks, grid: Grid, undisturbed: dict[str, str], tmp_path: Path, ledger: Ledger
) -> None:
    end_in_every_phase(forks, number, grid.words(tmp_path), tmp_path, undisturbed, ledger)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_real_commands_ended_in_one_phase_after_the_other(
    number: signal.Signals, grid: Grid, undisturbed: dict[str, str], tmp_path: Path, ledger: Ledger
) -> None:
    """The same with an interpreter of its own for every command and worker, as a person starts them."""
    end_in_every_phase(
        Commands(tmp_path / "hook"), number, grid.words(tmp_path / "r"), tmp_path / "r", undisturbed, ledger
    )


def end_in_every_phase(
    runner: Runner, number: signal.Signals, words: list[str], results: Path, expected: dict[str, str], ledger: Ledger
) -> None:
    for phase in PHASES if number == signal.SIGKILL else ASKED:
        code, text = runner.run(words, aimed(phase, number))
        assert code == (-signal.SIGKILL if number == signal.SIGKILL else INTERRUPTED), (phase, text)
        ledger.fault(f"{number.name} during {phase}")
        if number == signal.SIGTERM and PHASES[phase]["role"] == "worker":
            assert "this goes on from there:\n  python run_benchmark.py --methods" in text
        assert outcomes(results).items() <= expected.items(), "what is there after a kill is whole and right"
    finish(runner, words, results, expected, ledger)


@pytest.fixture(scope="module")
def changes(forks: Forks, grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How often a worker, and the command, change something in the results folder."""
    found = {}
    for role in ("worker", "command"):
        folder = tmp_path_factory.mktemp("changes")
        count = folder / "count"
        aim = {"role": role, "point": "change", "under": "/results/", "count": str(count)}
        code, text = forks.run(grid.words(folder / "results"), aim | ({"shard": 0} if role == "worker" else {}))
        assert code == 0, text
        found[role] = int(count.read_text())
    return found


def killed_at_changes(
    forks: Forks, words: list[str], results: Path, expected: dict[str, str], ledger: Ledger, role: str, calls: list[int]
) -> None:
    aim = {"role": role, "point": "change", "under": str(results), "signal": signal.SIGKILL}
    aim |= {"to": "all", "shard": 0} if role == "worker" else {"to": "self"}
    for call in calls:
        code, text = forks.run(words, aim | {"call": call})
        if code == -signal.SIGKILL:  # the later the run before was ended, the less is left to do
            ledger.fault(f"SIGKILL before a change of the results folder ({role})")
        else:
            assert code == 0, text
        assert outcomes(results).items() <= expected.items()
    finish(forks, words, results, expected, ledger)


@pytest.mark.parametrize("role", ["worker", "command"])
def test_killed_before_some_changes_of_the_folder(
    role: str,
    changes: dict[str, int],
    forks: Forks,
    grid: Grid,
    undisturbed: dict[str, str],
    tmp_path: Path,
    ledger: Ledger,
) -> None:
    calls = sorted(random.Random(4).sample(range(2, changes[role] + 1), 2), reverse=True)
    results = tmp_path / "results"
    killed_at_changes(forks, grid.words(results), results, undisturbed, ledger, role, calls)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("role", ["worker", "command"])
def test_killed_before_every_change_of_the_folder(
    role: str,
    changes: dict[str, int],
    forks: Forks,
    grid: Grid,
    undisturbed: dict[str, str],
    tmp_path: Path,
    ledger: Ledger,
) -> None:
    for call in range(1, changes[role] + 1):
        results = tmp_path / f"{call}" / "results"
        killed_at_changes(forks, grid.words(results), results, undisturbed, ledger, role, [call])


def strike(running: Running, moment: float, number: int) -> bool:
    """Let it run for a while; whether it could still be struck."""
    time.sleep(moment)
    if number == signal.SIGKILL:
        return running.kill() != 0
    running.send(number)
    return running.wait() != 0


@pytest.mark.parametrize("number", [0, *(pytest.param(number, marks=pytest.mark.slow) for number in range(1, 60))])
def test_ended_at_random_moments(
    number: int, forks: Forks, undisturbed: dict[str, str], grid: Grid, tmp_path: Path, ledger: Ledger
) -> None:
    """Up to five times, from outside, whatever the command is doing; a grid is over in that many parts or finished afterwards."""
    draw = random.Random(number)
    words = grid.words(tmp_path)
    seconds = 1.5
    for _ in range(5):
        started = time.monotonic()
        running = forks.start(words)
        kind = draw.choice([signal.SIGKILL, signal.SIGTERM])
        if strike(running, draw.uniform(0.0, seconds), kind):
            ledger.fault(f"{kind.name} at a random moment")
            seconds *= 1.3
        else:
            seconds = time.monotonic() - started
        assert outcomes(tmp_path).items() <= undisturbed.items()
    finish(forks, words, tmp_path, undisturbed, ledger)


# Figures


FIGURES = ("--kinds", "validation-curves")
DRAWING: dict[str, dict[str, Any]] = {
    "before a figure": {"point": "matplotlib.figure:Figure.savefig", "call": 1},
    "between PNG and SVG": {"point": "matplotlib.figure:Figure.savefig", "call": 2},
    "in the middle of a file": {"point": "half", "under": "/figures/", "call": 2},
    "before a change of the folder": {"point": "change", "under": "/figures/", "call": 4},
}


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*")) if not path.name.startswith(".")}


@pytest.fixture(scope="module")
def drawn(forks: Forks, complete: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Figures that nobody disturbs."""
    folder = tmp_path_factory.mktemp("figures")
    code, text = forks.run(["figures", *FIGURES, "--results", str(complete), "--out", str(folder)])
    assert code == 0, text
    return pictures(folder)


def test_ended_while_figures_are_drawn(
    forks: Forks, complete: Path, drawn: dict[str, bytes], tmp_path: Path, ledger: Ledger
) -> None:
    folder = tmp_path / "figures"
    words = ["figures", *FIGURES, "--results", str(complete), "--out", str(folder)]
    for moment, point in DRAWING.items():
        for number in (signal.SIGKILL, signal.SIGTERM):
            if number == signal.SIGTERM and "savefig" not in point["point"]:
                continue  # the same as between two figures
            code, text = forks.run(words, point | {"signal": number})
            assert code == (-signal.SIGKILL if number == signal.SIGKILL else INTERRUPTED), (moment, text)
            ledger.fault(f"{number.name} during the drawing of figures")
            assert pictures(folder).items() <= drawn.items(), "a figure is whole or not there"
    code, text = forks.run(words)
    assert code == 0, text
    assert pictures(folder) == drawn
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
