"""What must be measured on a CUDA device before its numbers may stand in a table; prints one table and keeps it as JSON.

    python benchmarks/gpu.py --json results/reference/<gpu kind>/gpu.json          # everything
    python benchmarks/gpu.py --parts neighbours alone --methods npc rshnl
    python benchmarks/gpu.py --quick --device cpu                                  # does the script run? its numbers mean nothing

    neighbours   same bytes of a run in shards of 2, 3, 5, 10, 20, in the first and the last place, for the shapes of every backbone
    alone        whether a lone run has other bytes than one of two, and whether its copy mends that
    width        seconds per run and epoch in shards of 1, 2, 5, 10, 20
    refused      every method for an epoch: which operations have no deterministic kernel
    devices      same bytes on two devices of one kind
    log          an epoch with the log of weights and losses, and without
    memory       peak on the device per run, beside four times its weights
    processes    same bytes from two processes at once on one device

Every number comes from a fresh process in the environment of the suite's workers. Afterwards, the whole table:

    python run_benchmark.py --protocol synthetic-30k-pairs --device cuda --methods cca clip clip_plus_meta clip_zeroshot fixed_weight \\
        gmm_bank hana msian ncr npc oracle_clean self_paced soft_nce vse
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import facts, fresh
from run import keep
from suite_runs import SIZES
from tabulate import tabulate

WIDTHS = (1, 2, 5, 10, 20)
METHODS = ("clip", "npc", "ncr", "msian", "rshnl", "mgsh", "nrch")
Line = tuple[str, str, str]


@dataclass(frozen=True)
class Case:
    """A method on data and a backbone."""

    method: str
    size: str
    changes: dict[str, Any]

    def __str__(self) -> str:
        told = "".join(f", {key} {value}" for key, value in self.changes.items() if key != "batch_size")
        return f"{self.method}, {self.size}{told}"


@dataclass(frozen=True)
class Bench:
    """Where to measure what; ``raw`` keeps every number."""

    device: str
    quick: bool
    methods: Sequence[str]
    folder: str
    raw: dict[str, Any]

    @property
    def cases(self) -> list[Case]:
        """Every method on the shapes of the backbones of its task."""
        return [Case(method, size, changes) for method in self.methods for size, changes in self._shapes(method)]

    @property
    def widths(self) -> tuple[int, ...]:
        return (1, 2, 5) if self.quick else WIDTHS

    def _shapes(self, method: str) -> list[tuple[str, dict[str, Any]]]:
        if is_label_method(method):
            big = {"hidden": 256, "batch_size": 64} if self.quick else {}
            return [("256 labels" if self.quick else "4,000 labels", big | more) for more in ({}, {"hidden": 128})]
        size, batch = ("400 x 5", {"batch_size": 128}) if self.quick else ("2k x 5", {})
        return [(size, batch), (size, batch | {"small": True})]

    def shard(self, case: Case, places: Sequence[int] = (0,), visible: str = "0", **options: Any) -> dict[str, Any]:
        """A shard in a process of its own."""
        found = fresh(
            "gpu_runs", "shard", cuda=visible if self.device == "cuda" else None, method=case.method, size=SIZES[case.size],
            folder=self.folder, device=self.device, places=list(places), **options, **case.changes,
        )  # fmt: skip
        self.raw[f"{case}, places {list(places)}, device {visible}, {options}"] = found
        return found


def is_label_method(method: str) -> bool:
    from nocobench.methods import registry

    return registry.get(method).cls.task == "label-hashing"


def verdict(digests: Sequence[str | None]) -> str:
    """Whether all are the same and none is missing."""
    if None in digests:
        return "FAILED: a run has no outcome"
    return f"{len(digests)} alike" if len(set(digests)) == 1 else f"{len(set(digests))} DIFFERENT of {len(digests)}"


def neighbours(bench: Bench) -> Iterator[Line]:
    """The first cell in the first and the last place of every width."""
    for case in bench.cases:
        digests = []
        for width in bench.widths[1:] if bench.quick else (2, 3, 5, 10, 20):
            others = list(range(20, 19 + width))
            digests.append(bench.shard(case, [0, *others])["digests"][0])
            digests.append(bench.shard(case, [*others, 0])["digests"][-1])
        yield "neighbours", str(case), verdict(digests)


def alone(bench: Bench) -> Iterator[Line]:
    """A lone run without its copy, with it, and one of two."""
    for case in bench.cases:
        two = bench.shard(case, [0, 1])["digests"][0]
        bare, with_copy = (bench.shard(case, company=company)["digests"][0] for company in (False, True))
        yield "alone", f"{case}: without its copy", verdict([two, bare])
        yield "alone", f"{case}: with it", verdict([two, with_copy])


def width(bench: Bench) -> Iterator[Line]:
    """Seconds per run and epoch."""
    for case in bench.cases:
        first = None
        for n in bench.widths:
            seconds = min(bench.shard(case, range(n), n_epochs=3)["epochs"]) / n
            first = first or seconds
            yield (
                "width",
                f"{case}: a run in a shard of {n}",
                f"{seconds:.3g} s per epoch, {seconds / first:.2f} of alone",
            )


def refused(bench: Bench) -> Iterator[Line]:
    """What fails under deterministic algorithms, over all methods."""
    from nocobench.methods import registry

    for method in registry.names():
        labels = is_label_method(method)
        small = Case(method, *(("256 labels", {"hidden": 256, "batch_size": 64}) if labels else ("400 x 5", {})))
        failed = bench.shard(small, [0, 1])["failed"]
        yield "refused", str(small), "; ".join(sorted(set(failed))) or "nothing"


def devices(bench: Bench) -> Iterator[Line]:
    """The same shard on two devices."""
    if len(bench.raw["kind"]["devices"]) < 2:
        yield "devices", "all", "not measured: there is one device"
        return
    for case in bench.cases:
        found = [bench.shard(case, [0, 1], visible=number)["digests"][0] for number in ("0", "1")]
        yield "devices", str(case), verdict(found)


def log(bench: Bench) -> Iterator[Line]:
    """The log's share of an epoch."""
    for case in bench.cases:
        places = range(bench.widths[-1])
        with_log, without = (min(bench.shard(case, places, n_epochs=4, log=log)["epochs"]) for log in (True, False))
        yield "log", str(case), f"{100 * (with_log / without - 1):+.1f} % of an epoch (wanted: below 2 %)"


def memory(bench: Bench) -> Iterator[Line]:
    """Peak on the device."""
    for case in bench.cases:
        for n in (1, bench.widths[-1]):
            found = bench.shard(case, range(n), n_epochs=1)
            needed = 16 * (found["weights"] or 0) / 1e6
            yield (
                "memory",
                f"{case}: shard of {n}",
                f"{found['peak_mb'] / n:.0f} MB per run; four times its weights {needed:.0f}",
            )


def processes(bench: Bench) -> Iterator[Line]:
    """Two at once, and one by itself."""
    for case in bench.cases:
        single = bench.shard(case, [0, 1])["digests"][0]  # first, because it also writes the data
        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(lambda _, case=case: bench.shard(case, [0, 1])["digests"][0], range(2)))
        yield "processes", str(case), verdict([single, *both])


PARTS: dict[str, Callable[[Bench], Iterator[Line]]] = {
    "neighbours": neighbours, "alone": alone, "width": width, "refused": refused, "devices": devices, "log": log,
    "memory": memory, "processes": processes,
}  # fmt: skip


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="(default: all)")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", default=METHODS, help="(default: %(default)s)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu only tries the script")
    parser.add_argument("--quick", action="store_true", help="small sizes and few widths")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append table, raw numbers and machine facts")
    return parser.parse_args()


def main() -> None:
    asked = options()
    kind = fresh("gpu_runs", "kind", cuda=",".join(map(str, range(16))))
    if asked.device == "cuda" and not kind["devices"]:
        raise SystemExit("no CUDA device is seen here; --device cpu --quick only tries the script")
    machine = facts() | kind
    print("; ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(asked.device, asked.quick, asked.methods, folder, {"kind": kind})
        for part in asked.parts:
            for line in PARTS[part](bench):
                lines.append(line)
                print(" | ".join(line), flush=True)
    print()
    print(tabulate(lines, headers=("part", "what", "found"), tablefmt="github", disable_numparse=True))
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        keep(asked.json, {"machine": machine, "quick": asked.quick, "table": lines, "numbers": bench.raw})


if __name__ == "__main__":
    main()
