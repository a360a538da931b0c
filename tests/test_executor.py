"""The local executor with workers that are not ours: progress, dead workers, interruption. And the worker with another engine."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from nocobench.protocols import worker
from nocobench.protocols.grid import cells, shards
from nocobench.protocols.local import Job, LocalExecutor, Summary
from nocobench.protocols.plan import Plan
from nocobench.protocols.progress import BarDisplay, Display, PlainDisplay, in_words
from nocobench.protocols.protocol import DEFAULT, load_protocol
from nocobench.results.record import CellKey

PROTOCOL = load_protocol(DEFAULT)

# A worker as the executor sees it; what it does is said by the method's name.
FAKE = """
import json, os, signal, sys, time
plan, shard = sys.argv[sys.argv.index("--plan") + 1], int(sys.argv[sys.argv.index("--shard") + 1])
cells = json.load(open(plan))["shards"][shard]
what = cells[0]["method"]
say = lambda **event: print(json.dumps(event), flush=True)
stopped = []
signal.signal(signal.SIGINT, lambda *_: stopped.append(1))
print("not an event", flush=True)
say(event="epoch", epoch=1, epochs=2, cells=len(cells))
if what == "dies":
    say(event="cell_done", cell=cells[0])
    os.kill(os.getpid(), signal.SIGKILL)
if what == "breaks":
    print("Traceback ...", file=sys.stderr)
    print("MemoryError: no more", file=sys.stderr)
    sys.exit(1)
if what == "fails":
    say(event="cell_failed", cell=cells[0], reason="the loss became non-finite")
if what == "nodata":
    say(event="error", message="images.npy is missing")
    sys.exit(2)
if what in ("slow", "stubborn"):
    for _ in range(300):
        time.sleep(0.05)
        if stopped and what == "slow":
            say(event="interrupted")
            sys.exit(130)
if what == "environment":
    say(event="cell_failed", cell=cells[0], reason=json.dumps(dict(os.environ)))
for cell in cells:
    say(event="cell_done", cell=cell)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "fake.py"
    path.write_text(FAKE)
    return path


def jobs_for(folder: Path, methods: Sequence[str], seeds: int = 2) -> list[Job]:
    wanted = cells(PROTOCOL, {}, [(method, "paper") for method in methods], [0.2], list(range(seeds)))
    plan = Plan(
        protocol=PROTOCOL,
        shards=tuple(tuple(shard) for shard in shards(wanted, 20, 1)),
        data_root=None,
        results=str(folder),
    )
    path = plan.write()
    return [Job(plan, path, number) for number in range(len(plan.shards))]


def run(program: Path, jobs: Sequence[Job], lost: list[tuple[CellKey, str]] | None = None, **options: Any) -> Summary:
    lost = [] if lost is None else lost
    note = lambda job, cells, reason: lost.extend((cell, reason) for cell in cells)  # noqa: E731
    places = options.pop("places", [None, None])
    return LocalExecutor(program, places, options.pop("display", Display(jobs)), note, **options).run(jobs)


def test_all_is_well(program: Path, tmp_path: Path) -> None:
    summary = run(program, jobs_for(tmp_path, ["a", "b", "c"]))
    assert (summary.exit_code, summary.failed, summary.errors, summary.interrupted) == (0, {}, [], False)


def test_a_dead_worker_costs_its_unfinished_cells_only(program: Path, tmp_path: Path) -> None:
    lost: list[tuple[CellKey, str]] = []
    jobs = jobs_for(tmp_path, ["a", "dies", "b"], seeds=3)
    summary = run(program, jobs, lost, places=[None])
    assert summary.exit_code == 1
    assert [(cell.method, cell.seed) for cell, _ in lost] == [("dies", 1), ("dies", 2)]
    assert {cell.method for cell, _ in summary.failed.values()} == {"dies"}
    assert all("SIGKILL" in reason and "out of memory" in reason for _, reason in lost)


def test_a_broken_worker_says_its_last_line(program: Path, tmp_path: Path) -> None:
    lost: list[tuple[CellKey, str]] = []
    assert run(program, jobs_for(tmp_path, ["breaks"]), lost).exit_code == 1
    assert "ended with code 1: MemoryError: no more" in lost[0][1]


def test_failed_cells_are_counted(program: Path, tmp_path: Path) -> None:
    summary = run(program, jobs_for(tmp_path, ["fails", "a"]))
    assert summary.exit_code == 1
    assert [reason for _, reason in summary.failed.values()] == ["the loss became non-finite"]


def test_bad_input_of_a_worker_is_bad_input(program: Path, tmp_path: Path) -> None:
    lost: list[tuple[CellKey, str]] = []
    summary = run(program, jobs_for(tmp_path, ["nodata", "a"]), lost)
    assert (summary.exit_code, summary.errors, lost) == (2, ["images.npy is missing"], [])


def test_fail_fast_stops_the_others(program: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    summary = run(program, jobs_for(tmp_path, ["slow", "fails", "slow2"]), fail_fast=True)
    assert (summary.exit_code, summary.interrupted) == (1, False)
    assert time.monotonic() - started < 10


def test_workers_get_their_environment(program: Path, tmp_path: Path) -> None:
    summary = run(program, jobs_for(tmp_path, ["environment"]), places=["GPU-7"])
    (_, reason) = next(iter(summary.failed.values()))
    seen = json.loads(reason)
    assert seen["OMP_NUM_THREADS"] == seen["MKL_NUM_THREADS"] == "1"
    assert (seen["MALLOC_MMAP_MAX_"], seen["PYTHONHASHSEED"]) == ("0", "0")
    assert (seen["CUBLAS_WORKSPACE_CONFIG"], seen["CUDA_VISIBLE_DEVICES"]) == (":4096:8", "GPU-7")


DRIVER = """
import sys
from pathlib import Path
from nocobench.protocols.commands import print_outcome
from nocobench.protocols.local import Job, LocalExecutor
from nocobench.protocols.plan import read_plan
from nocobench.protocols.progress import PlainDisplay

program, path = Path(sys.argv[1]), Path(sys.argv[2])
plan = read_plan(path)
jobs = [Job(plan, path, number) for number in range(len(plan.shards))]
display = PlainDisplay(jobs, sys.stderr, every=0.0)
summary = LocalExecutor(program, [None, None], display, lambda *_: print("LOST")).run(jobs)
print_outcome(summary, "python run_benchmark.py --methods slow")
sys.exit(summary.exit_code)
"""


def interrupt(program: Path, job: Job, signals: Sequence[int]) -> tuple[int, str, float]:
    """Exit code, output and seconds of a run that is sent these signals once its workers have started."""
    command = [sys.executable, "-c", textwrap.dedent(DRIVER), str(program), str(job.path)]
    process = subprocess.Popen(
        command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    output = process.stdout.readline()
    assert "epoch 1/2" in output
    started = time.monotonic()
    for number in signals:
        os.kill(process.pid, number)
        time.sleep(0.5)
    output += process.communicate(timeout=30)[0]
    return process.returncode, output, time.monotonic() - started


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_lets_workers_leave_and_says_how_to_go_on(program: Path, tmp_path: Path, number: int) -> None:
    code, output, seconds = interrupt(program, jobs_for(tmp_path, ["slow"])[0], [number])
    assert code == 130
    assert "goes on from there:\n  python run_benchmark.py --methods slow" in output
    assert "LOST" not in output
    assert seconds < 10


def test_a_second_interruption_ends_at_once(program: Path, tmp_path: Path) -> None:
    code, output, seconds = interrupt(program, jobs_for(tmp_path, ["stubborn"])[0], [signal.SIGINT, signal.SIGINT])
    assert code == 130
    assert "LOST" not in output
    assert seconds < 10


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_progress_is_single_lines_and_not_many(tmp_path: Path) -> None:
    jobs, out, clock = jobs_for(tmp_path, ["a", "b"]), io.StringIO(), Clock()
    display = PlainDisplay(jobs, out, clock=clock)
    display.started(0)
    for second in range(1, 101):
        clock.now = float(second)
        display.event(0, {"event": "epoch", "epoch": second, "epochs": 100})
    display.ended(0, "done")
    lines = out.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[0] == "[1/2] a@paper on digits, 2 runs: epoch 10/100 (grid 5 %, about 3 min left)"
    assert lines[-1] == "[1/2] a@paper on digits, 2 runs: done (grid 50 %, about 2 min left)"
    assert out.getvalue().replace("\n", "").isprintable()


def test_bars_take_every_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = jobs_for(tmp_path, ["a", "b"])
    with BarDisplay(jobs) as display:
        display.started(0)
        display.event(0, {"event": "epoch", "epoch": 1, "epochs": 2})
        display.event(0, {"event": "something new"})
        display.ended(0, "died [of] something")
    assert "died [of] something" in capsys.readouterr().err
    assert display.done_share == 0.5


def test_time_in_words() -> None:
    assert [in_words(seconds) for seconds in (4.2, 89, 90, 5399, 5400)] == ["4 s", "89 s", "2 min", "90 min", "1.5 h"]


def use_engine(monkeypatch: pytest.MonkeyPatch, run_shard: Any) -> None:
    from nocobench.protocols import engine

    monkeypatch.setattr(engine, "run_shard", run_shard)


def test_worker_reports_events(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_shard(shard: list[CellKey], *rest: Any, on_event: Any, **options: Any) -> None:
        print("a library prints")
        on_event({"event": "epoch", "epoch": 1, "epochs": 2, "cells": len(shard)})
        on_event({"event": "cell_failed", "cell": shard[0].model_dump(), "reason": "because"})

    use_engine(monkeypatch, run_shard)
    plan = jobs_for(tmp_path, ["clip"])[0].plan
    monkeypatch.setattr(sys, "__stdout__", sys.stdout)
    assert worker.work(plan, 0, as_events=True) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["event"] for line in out.splitlines()] == [
        "shard_started",
        "epoch",
        "cell_failed",
        "shard_finished",
    ]
    assert "a library prints" in err
    assert worker.work(plan, 0, as_events=False) == 0
    assert "clip@paper noise 0.2 seed 0: failed: because" in capsys.readouterr().out


def test_worker_stops_at_the_first_signal_and_at_once_at_the_second(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from nocobench.protocols.engine import Interrupted

    seen: list[bool] = []

    def patient(*rest: Any, stop: Any, **options: Any) -> None:
        seen.append(stop())
        os.kill(os.getpid(), signal.SIGTERM)
        seen.append(stop())
        raise Interrupted

    plan = jobs_for(tmp_path, ["clip"])[0].plan
    before = signal.getsignal(signal.SIGTERM)
    use_engine(monkeypatch, patient)
    assert worker.work(plan, 0, as_events=False) == 130
    assert seen == [False, True]

    def deaf(*rest: Any, **options: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
        raise AssertionError("not reached")

    use_engine(monkeypatch, deaf)
    assert worker.work(plan, 0, as_events=False) == 130
    assert signal.getsignal(signal.SIGTERM) is before
