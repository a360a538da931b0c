"""Runs the benchmarks and prints one table: what was measured, against what, and the ratio; with the facts of the machine.

    python benchmarks/run.py                        # everything; about an hour on two quiet cores
    python benchmarks/run.py --quick                # everything on small sizes, a few minutes; its ratios mean little
    python benchmarks/run.py --parts evaluation startup --json benchmarks/history.json

Every number comes from a fresh process with one thread, in the environment that the suite gives its workers; seconds are CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import startup
from measuring import facts, fresh
from tabulate import tabulate


@dataclass(frozen=True)
class Row:
    """A line of the table; ``value`` and ``baseline`` in ``unit``, ``wanted`` is what issue and design ask of the ratio."""

    part: str
    what: str
    value: float
    unit: str
    against: str = ""
    baseline: float | None = None
    wanted: str = ""

    @property
    def ratio(self) -> float | None:
        return None if not self.baseline else self.value / self.baseline

    @property
    def cells(self) -> tuple[str, ...]:
        numbers = ["" if x is None else f"{x:.3g}" for x in (self.value, self.baseline, self.ratio)]
        return (self.part, self.what, numbers[0], self.unit, self.against, *numbers[1:], self.wanted)


@dataclass(frozen=True)
class Bench:
    """What all parts need: ``quick`` sizes or full ones, a folder for data, and where raw numbers are kept."""

    quick: bool
    folder: str
    raw: dict[str, Any]
    methods: Sequence[str] = ()

    def fresh(self, module: str, function: str, **arguments: Any) -> Any:
        """A measurement in a process of its own, kept among the raw numbers."""
        found = fresh(module, function, **arguments)
        told = ", ".join(f"{key}={value}" for key, value in arguments.items() if key != "folder")
        self.raw.setdefault(f"{module}.{function}({told})", []).append(found)
        return found

    def wants(self, method: str) -> bool:
        return not self.methods or method in self.methods

    def suite(self, method: str, size: str, **options: Any) -> dict[str, Any]:
        return self.fresh("suite_runs", "epochs", method=method, size=sizes()[size], folder=self.folder, **options)

    def plain(self, method: str, size: str, **options: Any) -> dict[str, Any]:
        return self.fresh("plain_loops", "epochs", method=method, size=sizes()[size], folder=self.folder, **options)


def sizes() -> dict[str, dict[str, Any]]:
    from suite_runs import SIZES

    return SIZES


def per_epoch(found: dict[str, Any], what: str = "epoch") -> float:
    """Of the best epoch, so that what happens once (page faults of new moments, first calls) does not count."""
    return min(found[what])


def in_turn(*measurements: Callable[[], dict[str, Any]]) -> list[dict[str, Any]]:
    """Every measurement twice, one after the other and again, their epochs together: other load on the machine comes and goes."""
    first, second = ([measure() for measure in measurements] for _ in range(2))
    together = [
        one | {what: one[what] + other[what] for what in ("epoch", "evaluate")}
        for one, other in zip(first, second, strict=True)
    ]
    for joined, other in zip(together, second, strict=True):
        if "floor" in joined:
            joined.update({what: min(joined[what], other[what]) for what in ("floor", "floor_evaluate")})
    return together


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of log(seconds) against log(size), least squares."""
    x, y = ([math.log(value) for value in values] for values in (sizes, seconds))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return slope / sum((a - mean_x) ** 2 for a in x)


def epochs(bench: Bench) -> Iterator[Row]:
    """One run here against the plain loop and against its matrix products alone."""
    plans: list[tuple[str, str, dict[str, Any], int]] = [
        *((method, "2k x 5", {}, 2) for method in ("clip", "npc", "ncr")),
        *((method, "29k x 5", {}, 1) for method in ("clip", "npc", "ncr")),
        *((method, "4,000 labels", {}, 2 if method == "rshnl" else 1) for method in ("rshnl", "mgsh")),
    ]
    if bench.quick:
        plans = [(m, "400 x 5", {}, 2) for m in ("clip", "npc", "ncr")]
        plans += [(m, "256 labels", {"hidden": 256, "batch_size": 64}, 2) for m in ("rshnl", "mgsh")]
    floors: dict[str, tuple[float, float]] = {}
    for method, size, changes, n in [plan for plan in plans if bench.wants(plan[0])]:
        big = size == "29k x 5"
        asked = [
            partial(bench.suite, method, size, n_epochs=n, **changes),
            partial(bench.plain, method, size, n_epochs=n, floor=not big, **changes),
        ]
        if method in ("clip", "rshnl"):
            asked.append(partial(bench.plain, method, size, n_epochs=n, fused=True, **changes))
        here, plain, *fused = in_turn(*asked)
        if big:  # as many products per pair as at 2k x 5, and an evaluation of the same size
            training, evaluation = floors[method]
            floor = 14.5 * training + evaluation
        else:
            floor = plain["floor"]
            floors[method] = floor - plain["floor_evaluate"], plain["floor_evaluate"]
        what = f"{method}, {size}: an epoch and its evaluation"
        yield Row("epochs", what, per_epoch(here), "CPU s", "plain loop", per_epoch(plain), "1.1 at most")
        if fused:
            yield Row("epochs", what, per_epoch(here), "CPU s", "plain loop, fused optimiser", per_epoch(fused[0]))
        wanted = "1.5 at most" if size in ("29k x 5", "4,000 labels") else ""
        yield Row("epochs", what, per_epoch(here), "CPU s", "its matrix products", floor, wanted)
        yield Row(
            "epochs", f"{method}, {size}: the plain loop", per_epoch(plain), "CPU s", "its matrix products", floor
        )
        yield Row(
            "epochs",
            f"{method}, {size}: evaluation",
            per_epoch(here, "evaluate"),
            "CPU s",
            "plain",
            per_epoch(plain, "evaluate"),
        )


def shards(bench: Bench) -> Iterator[Row]:
    """Cost of a run in shards of several, and of one alone."""
    widths = (1, 2, 5) if bench.quick else (1, 5, 20, 60)
    for method in ("clip", "npc"):
        for size, changes in (("400 x 5", {"small": True, "batch_size": 128}), ("400 x 5", {})):
            heads = "heads of digits-pairs" if changes else "heads 512-512-512"
            costs = {n: per_epoch(bench.suite(method, size, runs=n, n_epochs=2, **changes)) for n in widths}
            for n in widths[1:]:
                wanted = "0.8 at most" if n == 20 else ""
                what = f"{method}, {size}, {heads}: a run in a shard of {n}, per epoch"
                yield Row("shards", what, costs[n], "CPU s", "alone", costs[1], wanted)


def growth(bench: Bench) -> Iterator[Row]:
    """Exponents of the seconds of an epoch of ``clip`` on the small heads."""
    from suite_runs import SIZES

    base = {"small": True, "batch_size": 128}
    factor = 1 if bench.quick else 4

    def seconds(size: dict[str, Any], **options: Any) -> float:
        found = bench.fresh(
            "suite_runs", "epochs", method="clip", size=size, folder=bench.folder, n_epochs=2, **base, **options
        )
        return per_epoch(found) - per_epoch(found, "evaluate")

    few = {**SIZES["400 x 5"], "n_train": 400 * factor}
    images = [few["n_train"] * step for step in (1, 2, 4)]
    found = [seconds({**few, "n_train": n}) for n in images]
    yield Row("growth", f"exponent of training in images, {images}", exponent(images, found), "", wanted="about 1")
    captions = [1, 2, 5, 10]
    found = [seconds({**few, "captions_per_image": n}) for n in captions]
    yield Row(
        "growth",
        f"exponent of training in captions per image, {captions}",
        exponent(captions, found),
        "",
        wanted="about 1",
    )
    runs = [2, 4, 8] if bench.quick else [4, 12, 40]  # four rates, 1, 3, 10 seeds
    found = [n * seconds(few, runs=n) for n in runs]
    yield Row("growth", f"exponent of a shard in seeds x rates, {runs}", exponent(runs, found), "", wanted="1 at most")


def evaluation(bench: Bench) -> Iterator[Row]:
    """Recall at K and MAP against the plain implementations."""
    for n in (200, 500) if bench.quick else (1000, 5000):
        here = bench.fresh("evaluation_speed", "recall_here", n_images=n)
        plain = bench.fresh("evaluation_speed", "recall_plain", n_images=n)
        if abs(here["rsum"] - plain["rsum"]) > 0.1:
            raise RuntimeError(f"rSum is {here['rsum']} here and {plain['rsum']} by argsort")
        gemm = bench.fresh("evaluation_speed", "gemm_of_recall", n_images=n)
        what, big = f"R@K of {n:,} x {5 * n:,}", n == 5000
        yield Row(
            "evaluation",
            what,
            here["cpu"],
            "CPU s",
            "argsort twice",
            plain["cpu"],
            "0.04 at most (1/25)" if big else "",
        )
        yield Row(
            "evaluation", what, here["cpu"], "CPU s", "the similarities alone", gemm, "1.7 at most" if big else ""
        )
        yield Row(
            "evaluation", what, here["mb"], "MB", "argsort twice", plain["mb"], "0.02 at most (1/50)" if big else ""
        )
        yield Row("evaluation", f"{what}, per query", here["mb"] / (6 * n), "MB")
    plans = [(2000, 18_015, 24, 500), (5000, 117_218, 80, 50)]
    for queries, items, classes, some in [(300, 2000, 24, 100)] if bench.quick else plans:
        for bits in (16, 128) if bench.quick else (16, 32, 64, 128):
            case = [queries, items, bits, classes, 3.8]
            here = bench.fresh("evaluation_speed", "map_here", case=case)
            what = f"MAP of {queries:,} x {items:,}, {bits} bits"
            for kind in ("float32", "float64"):
                plain = bench.fresh("evaluation_speed", "map_plain", case=case, queries=some, kind=kind)
                against = f"loop over queries, {kind} ({some} of {queries:,} queries, scaled)"
                wanted = "0.067 at most (1/15)" if (queries, bits) == (2000, 128) else ""
                yield Row("evaluation", what, here["cpu"], "CPU s", against, plain["cpu"], wanted)
            yield Row("evaluation", f"{what}, memory", here["mb"], "MB", "the loop", plain["mb"], "64 MB at most")
            yield Row("evaluation", f"{what}, memory per query", here["mb"] / queries, "MB")


def starts(bench: Bench) -> Iterator[Row]:
    """Imports of commands that train nothing, planning, tables of many records."""
    for words in startup.COMMANDS:
        found = startup.start(words)
        bench.raw[f"start {' '.join(words)}"] = asdict(found)
        torch = ", TORCH IMPORTED" if found.torch else ""
        yield Row("startup", f"`{' '.join(words)}`: imports{torch}", found.imports, "s", wanted="0.5 at most")
        yield Row("startup", f"`{' '.join(words)}`: everything", found.cpu, "CPU s")
    n_cells = 100 if bench.quick else 10_000
    with startup.planning(n_cells) as words:
        found = startup.start(words)
    bench.raw[f"planning {n_cells}"] = asdict(found)
    torch = ", TORCH IMPORTED" if found.torch else ""
    yield Row("startup", f"planning {n_cells:,} cells{torch}", found.cpu, "CPU s")
    yield Row("startup", f"planning {n_cells:,} cells: imports", found.imports, "s")
    n_records = 300 if bench.quick else 10_000
    with startup.records(n_records) as words:
        for order in ("first", "second"):
            found = startup.start(words)
            bench.raw[f"tables of {n_records}, {order}"] = asdict(found)
            torch = ", TORCH IMPORTED" if found.torch else ""
            yield Row("startup", f"tables of {n_records:,} records, {order} time{torch}", found.cpu, "CPU s")


def memory(bench: Bench) -> Iterator[Row]:
    """Peak of a run, features included, against what its tensors need."""
    from suite_runs import needed_mb

    plans: list[tuple[str, str, dict[str, Any]]] = [
        ("clip", "29k x 5", {}),
        ("rshnl", "4,000 labels", {}),
        ("mgsh", "4,000 labels", {}),
    ]
    if bench.quick:
        plans = [("clip", "2k x 5", {}), ("rshnl", "256 labels", {"hidden": 1024})]
    for method, size, changes in [plan for plan in plans if bench.wants(plan[0])]:
        found = bench.suite(method, size, n_epochs=1, **changes)
        needed = needed_mb(found["weights"], sizes()[size], **changes)
        what = f"{method}, {size}: peak of a run"
        yield Row(
            "memory",
            what,
            found["extra_mb"] + found["tables_mb"],
            "MB",
            "what its tensors need",
            needed + found["tables_mb"],
            "1.3 at most",
        )
        yield Row("memory", f"{what}, features not counted", found["extra_mb"], "MB", "its tensors", needed)


PARTS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "epochs": epochs,
    "shards": shards,
    "growth": growth,
    "evaluation": evaluation,
    "startup": starts,
    "memory": memory,
}
HEADS = ("part", "what", "here", "unit", "against", "that", "here / that", "wanted")


def keep(path: Path, entry: dict[str, Any]) -> None:
    """Append to a history: a JSON list, oldest first."""
    history = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    path.write_text(json.dumps([*history, entry], indent=1) + "\n", encoding="utf-8")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="(default: all)")
    parser.add_argument("--methods", nargs="+", default=[], help="in epochs and memory (default: all)")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes: shows that everything runs, its ratios mean little"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="append table, raw numbers and machine facts to this history"
    )
    return parser.parse_args()


def main() -> None:
    asked = options()
    machine = facts()
    print("; ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(asked.quick, folder, {}, asked.methods)
        for part in asked.parts:
            for row in PARTS[part](bench):
                rows.append(row)
                print(" | ".join(cell for cell in row.cells if cell), flush=True)
    print()
    print(tabulate([row.cells for row in rows], headers=HEADS, tablefmt="github", disable_numparse=True))
    if asked.json:
        table = [asdict(row) | {"ratio": row.ratio} for row in rows]
        keep(
            asked.json,
            {"machine": machine, "quick": asked.quick, "parts": asked.parts, "table": table, "numbers": bench.raw},
        )


if __name__ == "__main__":
    main()
