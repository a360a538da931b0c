"""CPU seconds and memory of mean average precision here against the loop over queries that hashing code usually has.

The plain loop is numpy alone: per query a product with all codes and with all label rows, ``argsort``, precision at the hits. Its codes and
labels are float32 or float64 (both occur). Both sides get the same items; every measurement is a fresh process with one thread, whose
CPU seconds and extra peak memory are those of the call alone, inputs not counted, after a first call on few queries.
The two MAPs of a line may differ by the order that ``argsort`` gives to ties, and must lie between the bounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from shards import facts, measured, spread, worker_environment

Tables = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
PLAIN = {"plain, float32": np.float32, "plain, float64": np.float64}
OURS = "ours"


@dataclass(frozen=True)
class Case:
    """Sizes; ``per_item`` = labels of an item on average, None = exactly one."""

    queries: int
    items: int
    bits: int
    classes: int
    per_item: float | None

    @property
    def name(self) -> str:
        kind = "classes" if self.per_item is None else "labels"
        return f"{self.queries:,} x {self.items:,}, {self.bits} bits, {self.classes} {kind}"


CASES = (
    Case(2000, 18_015, 128, 24, 3.8),  # MIRFlickr-25K
    Case(5000, 5000, 64, 20, None),
    Case(693, 693, 64, 10, None),  # test set of Wikipedia
)


def tables(case: Case) -> Tables:
    """int8 codes that know a little of the labels, and labels uint8: queries, items, labels of both."""
    generator = np.random.Generator(np.random.PCG64(0))
    directions = generator.standard_normal((case.classes, case.bits))
    codes, labels = [], []
    for n in (case.queries, case.items):
        if case.per_item is None:
            given = np.eye(case.classes, dtype=np.uint8)[generator.integers(0, case.classes, n)]
        else:
            given = (generator.random((n, case.classes)) < case.per_item / case.classes).astype(np.uint8)
        noisy = given @ directions + 3 * generator.standard_normal((n, case.bits))
        codes.append(np.where(noisy > 0, 1, -1).astype(np.int8))
        labels.append(given)
    return codes[0], codes[1], labels[0], labels[1]


def plain_map(queries: np.ndarray, items: np.ndarray, query_labels: np.ndarray, labels: np.ndarray) -> float:
    """MAP over the whole database, query by query."""
    total, counted = 0.0, 0
    for code, wanted in zip(queries, query_labels, strict=True):
        relevant = np.dot(labels, wanted) > 0
        if not relevant.any():
            continue
        distance = 0.5 * (items.shape[1] - np.dot(items, code))
        place = np.flatnonzero(relevant[np.argsort(distance)]) + 1
        total += np.mean(np.arange(1, len(place) + 1) / place)
        counted += 1
    return 100 * total / counted


def job(who: str, case: Case) -> tuple[Callable[[int], Any], Callable[[Any], list[float]]]:
    """A function of the number of queries, and what its result says of MAP: the value, and bounds if known."""
    given = tables(case)
    if who in PLAIN:
        arrays = [x.astype(PLAIN[who]) for x in given]
        return (
            lambda n: plain_map(arrays[0][:n], arrays[1], arrays[2][:n], arrays[3]),
            lambda value: [float(value)],
        )
    import torch
    from nocobench.protocols import map_metrics

    queries, items, query_labels, labels = map(torch.from_numpy, given)
    return (
        lambda n: map_metrics.rank_by_hamming(queries[:n], items, query_labels[:n], labels, k=50),
        lambda r: [100 * float(values.nanmean()) for values in (r.expected, r.lower, r.upper)],
    )


class PeakMemory:
    """Largest growth of resident memory while it runs, MiB, looked at every five milliseconds by a thread of its own."""

    def __enter__(self) -> PeakMemory:
        self.start, self.largest, self.done = resident(), 0.0, threading.Event()
        self.watcher = threading.Thread(target=self._watch, daemon=True)
        self.watcher.start()
        return self

    def _watch(self) -> None:
        while not self.done.wait(0.005):
            self.largest = max(self.largest, resident() - self.start)

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.watcher.join()


def resident() -> float:
    """MiB of this process in memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def measure_here(who: str, number: int) -> dict[str, Any]:
    case = CASES[number]
    call, maps = job(who, case)
    call(20)
    with PeakMemory() as memory:
        # Of this thread, not of the one that watches.
        started = time.thread_time()
        result = call(case.queries)
        seconds = time.thread_time() - started
    return {"seconds": seconds, "memory": memory.largest, "map": maps(result)}


def measure(who: str, number: int, repeats: int) -> list[dict[str, Any]]:
    command = [sys.executable, str(Path(__file__).resolve()), "--here", who, str(number)]
    return [json.loads(measured(command, worker_environment())[1].splitlines()[-1]) for _ in range(repeats)]


def row(number: int, repeats: int) -> list[str]:
    """Cells of one case."""
    found = {who: measure(who, number, repeats) for who in (OURS, *PLAIN)}
    expected, lower, upper = found[OURS][0]["map"]
    for who in PLAIN:
        (value,) = found[who][0]["map"]
        assert lower - 1e-6 <= value <= upper + 1e-6, f"{who}: MAP {value} is not between {lower} and {upper}"
    seconds = {who: [one["seconds"] for one in many] for who, many in found.items()}
    ours = statistics.median(seconds[OURS])
    cells = [CASES[number].name, spread(seconds[OURS])]
    for who in PLAIN:
        cells += [spread(seconds[who]), f"{statistics.median(seconds[who]) / ours:.1f}"]
    memory = statistics.median(one["memory"] for one in found[OURS])
    return [*cells, f"{memory:.0f}", f"{expected:.3f} / {found['plain, float32'][0]['map'][0]:.3f}"]


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="processes per measurement (default: 3)")
    parser.add_argument("--here", nargs=2, metavar=("WHO", "CASE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        print(json.dumps(measure_here(asked.here[0], int(asked.here[1]))))
        return
    print(", ".join(f"{key} {value}" for key, value in facts().items()))
    print(
        f"CPU seconds, median (smallest-largest) of {asked.repeats} fresh processes with one thread; MiB = extra peak memory\n"
    )
    heads = ["one direction", OURS]
    for who in PLAIN:
        heads += [who, "/ ours"]
    heads += ["ours, MiB", "MAP ours / plain"]
    print(line(heads))
    print(line(["---"] * len(heads)))
    for number in range(len(CASES)):
        print(line(row(number, asked.repeats)), flush=True)


if __name__ == "__main__":
    main()
