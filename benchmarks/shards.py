"""Time and memory of the main job, of one shard of 20 runs against 20 single runs, and of one run against a plain PyTorch loop.

Every measurement is a fresh process with one thread; what is compared is CPU seconds (user and system) of that process, so that other
load on the machine matters little. Tables give the median of the repeats and their range; ratios name their baseline.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from measuring import facts

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "run_benchmark.py"
RATES, SEEDS = (0.2, 0.4, 0.6, 0.8), (0, 1, 2, 3, 4)
SIZES = {
    "digits": {"dataset": None, "epochs": 10},
    # 2,000 images with five captions each, 512 numbers per item: the size of a small data set with CLIP features.
    "10k": {
        "dataset": {
            "name": "synthetic",
            "options": {"n_train": 2000, "captions_per_image": 5, "image_dim": 512, "text_dim": 512},
        },
        "epochs": 3,
    },
}


@dataclass(frozen=True)
class Cost:
    """What one process took: seconds on the clock, CPU seconds, peak memory in MiB (of its largest process)."""

    wall: float
    cpu: float
    memory: float


def measured(command: Sequence[str], environment: dict[str, str]) -> tuple[Cost, str]:
    """Run a command and its children to the end.

    Raises:
        RuntimeError: it failed.
    """
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=os.environ | environment)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with code {process.returncode}:\n{text}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit), text


def worker_environment() -> dict[str, str]:
    """As the suite starts its workers."""
    from nocobench.protocols.worker import environment

    return environment(1, None)


def main_job(methods: Sequence[str], workers: int) -> Cost:
    """The main job from an empty results folder, tables included."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["--methods", *methods, "--noise", *map(str, RATES), "--device", "cpu", "--workers", str(workers)]
        return measured([sys.executable, str(PROGRAM), *words, "--results", folder], {})[0]


def shards(method: str, split: Callable[[Sequence[Any]], list[list[Any]]]) -> list[Cost]:
    """The 20 cells of a method as worker processes, one per shard, one after another."""
    from nocobench.protocols import grid
    from nocobench.protocols.plan import Plan
    from nocobench.protocols.protocol import load_protocol

    protocol = load_protocol("digits-pairs")
    (choice,) = grid.parse_methods([method])
    cells = grid.cells(protocol, {}, [choice], RATES, SEEDS)
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(
            protocol=protocol,
            shards=tuple(map(tuple, split(cells))),
            data_root=None,
            results=folder,
            command="benchmark",
        )
        path = plan.write()
        costs = []
        for number in range(len(plan.shards)):
            command = [sys.executable, str(PROGRAM), "worker", "--plan", str(path), "--shard", str(number)]
            costs.append(measured(command, worker_environment())[0])
        return costs


def together(cells: Sequence[Any]) -> list[list[Any]]:
    """One shard."""
    return [list(cells)]


def apart(cells: Sequence[Any], number: int) -> list[list[Any]]:
    """A shard per cell, for ``number`` cells spread over rates and seeds."""
    return [[cells[position * len(cells) // number]] for position in range(number)]


def startup() -> Cost:
    """What a worker takes before it trains anything: imports, plan, data."""
    (cost,) = shards("clip_zeroshot", lambda cells: [list(cells[:1])])
    return cost


def loop(size: str, runs: int) -> dict[str, float]:
    """CPU seconds per epoch and run of this suite (``runs`` side by side) or, with 0, of the plain loop; in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--loop", size, str(runs)]
    return json.loads(measured(command, worker_environment())[1].splitlines()[-1])


def _loop_here(size: str, runs: int) -> dict[str, float]:
    from nocobench.protocols import engine
    from nocobench.protocols.contract_checks import Trial, cells_of
    from nocobench.protocols.protocol import load_protocol, with_overrides
    from nocobench.protocols.schema import DatasetChoice

    choice: dict[str, Any] = SIZES[size]
    protocol, _ = with_overrides(load_protocol("digits-pairs"), epochs=choice["epochs"])
    if choice["dataset"]:
        protocol = protocol.model_copy(update={"dataset": DatasetChoice(**choice["dataset"])})
    if not runs:
        import plain

        training, evaluation, rsum = plain.train(protocol, 0.4, choice["epochs"])
        return {"train": statistics.median(training), "evaluate": statistics.median(evaluation), "rsum": rsum}
    training, evaluation = [], []

    class Timed(engine.ShardTraining):
        def _epoch(self, epoch: int) -> list[dict[str, float]]:
            started = time.process_time()
            losses = super()._epoch(epoch)
            training.append((time.process_time() - started) / runs)
            return losses

        def _evaluate(self, epoch: int, losses: list[dict[str, float]]) -> None:
            started = time.process_time()
            super()._evaluate(epoch, losses)
            evaluation.append((time.process_time() - started) / runs)

    cells = cells_of(protocol, "clip", "paper", (0.4, 0.2, 0.6, 0.8), SEEDS)[:runs]
    record = Trial("clip", "paper", protocol).run(cells, make_training=Timed)[cells[0].cell_id]
    assert record.outcome is not None, record.reason
    return {
        "train": statistics.median(training),
        "evaluate": statistics.median(evaluation[1:]),
        "rsum": record.outcome.last.full.rsum,
    }


def spread(values: Sequence[float]) -> str:
    """``median (smallest-largest)``."""
    return f"{statistics.median(values):.3g} ({min(values):.3g}-{max(values):.3g})"


Row = tuple[str, str]


def measure_job(methods: Sequence[str], repeats: int, raw: dict[str, Any]) -> list[Row]:
    """The main job."""
    costs = [main_job(methods, workers=2) for _ in range(repeats)]
    raw["main job"] = [asdict(cost) for cost in costs]
    what = f"main job, {' '.join(methods)}, {len(methods) * len(RATES) * len(SEEDS)} runs, 2 workers"
    return [
        (f"{what}: seconds", spread([cost.wall for cost in costs])),
        (f"{what}: CPU seconds", spread([cost.cpu for cost in costs])),
        ("main job: peak memory of its largest process, MiB", spread([cost.memory for cost in costs])),
    ]


def measure_shards(methods: Sequence[str], repeats: int, singles: int, raw: dict[str, Any]) -> list[Row]:
    """A shard of 20 runs against 20 single runs, baseline: the single runs (``singles`` of them, taken 20 / singles times)."""
    starts = [startup().cpu for _ in range(repeats)]
    raw["startup"] = starts
    start, rows = statistics.median(starts), [("start-up of a worker: CPU seconds", spread(starts))]
    for method in methods:
        wide = [shards(method, together)[0] for _ in range(repeats)]
        single = [shards(method, lambda cells: apart(cells, singles)) for _ in range(repeats)]
        raw[f"shard {method}"] = [asdict(cost) for cost in wide]
        raw[f"single {method}"] = [[asdict(cost) for cost in costs] for costs in single]
        sums = [20 / singles * sum(cost.cpu for cost in costs) for costs in single]
        bare = [(w.cpu - start) / (s - 20 * start) for w, s in zip(wide, sums, strict=True)]
        rows += [
            (f"{method}: shard of 20, CPU seconds", spread([cost.cpu for cost in wide])),
            (f"{method}: 20 single runs, CPU seconds", spread(sums)),
            (f"{method}: shard / single runs", spread([w.cpu / s for w, s in zip(wide, sums, strict=True)])),
            (f"{method}: shard / single runs, without start-up", spread(bare)),
            (f"{method}: peak memory of the shard, MiB", spread([cost.memory for cost in wide])),
            (f"{method}: peak memory of a single run, MiB", spread([c.memory for costs in single for c in costs])),
        ]
    return rows


def measure_loops(repeats: int, raw: dict[str, Any]) -> list[Row]:
    """``clip`` in this suite against the plain loop, baseline: the plain loop (plain.py) on the same data and steps."""
    rows = []
    for size in SIZES:
        found = {runs: [loop(size, runs) for _ in range(repeats)] for runs in (0, 1, 20)}
        raw[f"loops {size}"] = found
        train = {runs: [one["train"] for one in many] for runs, many in found.items()}
        base = statistics.median(train[0])
        rows += [(f"clip on {size}: plain loop, CPU seconds per epoch", spread(train[0]))]
        rows += [
            (f"clip on {size}: {runs} here / plain loop, per run", spread([value / base for value in train[runs]]))
            for runs in (1, 20)
        ]
        rsum = " / ".join(f"{found[runs][0]['rsum']:.1f}" for runs in (0, 1, 20))
        rows.append((f"clip on {size}: rSum of plain / 1 / 20", rsum))
    return rows


def keep(path: Path, entry: dict[str, Any]) -> None:
    """Append to a history: a JSON list, oldest first."""
    history = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    path.write_text(json.dumps([*history, entry], indent=1) + "\n", encoding="utf-8")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["hana", "npc"], help="of the main job (default: hana npc)")
    parser.add_argument("--repeats", type=int, default=3, help="processes per measurement (default: 3)")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=["job", "shards", "loops"],
        default=["job", "shards", "loops"],
        help="(default: all)",
    )
    parser.add_argument(
        "--singles", type=int, default=20, help="single runs that stand for all 20 (default: 20; fewer are quicker)"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="append raw numbers and machine facts to this history"
    )
    parser.add_argument("--loop", nargs=2, metavar=("SIZE", "RUNS"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    asked = options()
    if asked.loop:
        print(json.dumps(_loop_here(asked.loop[0], int(asked.loop[1]))))
        return
    raw: dict[str, Any] = {}
    measurements: dict[str, Callable[[], list[Row]]] = {
        "job": lambda: measure_job(asked.methods, asked.repeats, raw),
        "shards": lambda: measure_shards(asked.methods, asked.repeats, asked.singles, raw),
        "loops": lambda: measure_loops(asked.repeats, raw),
    }
    machine = facts()
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    print(f"median (smallest-largest) of {asked.repeats} fresh processes")
    for part in asked.parts:
        for what, value in measurements[part]():
            print(f"{what:<66} {value}", flush=True)
    if asked.json:
        keep(
            asked.json,
            {
                "machine": machine,
                "methods": asked.methods,
                "repeats": asked.repeats,
                "singles": asked.singles,
                "numbers": raw,
            },
        )


if __name__ == "__main__":
    main()
