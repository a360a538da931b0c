"""False alarms and power of what ``significance`` prints, by simulation: how often equal methods are told apart, and unequal ones.

Scores are drawn as a grid gives them: data sets x noise rates x seeds x methods, the seeds of a data set shared by its rates. Prints
Markdown tables with percentages; docs/statistics.md says what they mean.

    .venv/bin/python benchmarks/power.py                 # 20,000 tables per entry; about five minutes
    .venv/bin/python benchmarks/power.py --tables 2000   # seconds, to within 1 % at 5 %
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from nocobench.analysis import resampling
from nocobench.analysis.intervals import FEWEST_SEEDS, Estimate, beyond, over_seeds
from nocobench.analysis.ranking import joint_means
from nocobench.analysis.ranks import critical_difference
from nocobench.analysis.resampling import generator
from numpy.typing import NDArray
from scipy import stats
from tabulate import tabulate

Floats = NDArray[np.float64]
ALPHA = 0.05
DATA_SET_SPREAD = (1.0, 2.0, 0.7, 3.0, 1.4)  # of the seeds, where data sets are uneven


@dataclass(frozen=True)
class Structure:
    """What a table looks like; standard deviations of a method's score, in units of ``of_seed``.

    Attributes:
        of_data_set, of_rate: how much a method's true score differs between data sets, and between rates of one, from the others'.
        of_seed: by seed, the same at all rates of a data set.
        of_run: by run.
        uneven: the spread grows fourfold from the first to the last rate and differs between data sets.
        heavy: single runs have Student's distribution with 3 degrees of freedom instead of the normal.
    """

    data_sets: int = 1
    rates: int = 5
    seeds: int = 5
    methods: int = 2
    of_data_set: float = 0.0
    of_rate: float = 0.0
    of_seed: float = 1.0
    of_run: float = 1.0
    uneven: bool = False
    heavy: bool = False


def draw(shape: Structure, n: int, rng: np.random.Generator, lead: float = 0.0) -> list[Floats]:
    """Per data set ``[n, rates, seeds, methods]``; the first method is ahead by ``lead`` everywhere, else all are equal on average."""
    spread = np.linspace(0.5, 2.0, shape.rates) if shape.uneven else np.ones(shape.rates)
    found = []
    for number in range(shape.data_sets):
        scale = DATA_SET_SPREAD[number % len(DATA_SET_SPREAD)] if shape.uneven else 1.0
        size = (n, shape.rates, shape.seeds, shape.methods)
        single = rng.standard_t(3, size) if shape.heavy else rng.normal(size=size)
        scores = scale * (
            shape.of_seed * rng.normal(size=(n, 1, *size[2:])) + shape.of_run * spread[:, None, None] * single
        )
        scores += shape.of_data_set * rng.normal(size=(n, 1, 1, shape.methods))
        scores += shape.of_rate * rng.normal(size=(n, shape.rates, 1, shape.methods))
        scores[..., 0] += lead
        found.append(scores)
    return found


def differences(tables: Sequence[Floats], first: int = 0, second: int = 1) -> list[Floats]:
    """Per data set ``[n, rates, seeds]``."""
    return [scores[..., first] - scores[..., second] for scores in tables]


def told_apart(estimate: Estimate | None, values: int, pairs: int = 1) -> Floats:
    """``[n]``: 1 where two methods are told apart, as ``Comparison`` does it; ``values`` are independent."""
    if estimate is None or values < FEWEST_SEEDS:
        return np.zeros(1)
    return (estimate.p() * pairs < ALPHA).astype(float)


def alarms_here(shape: Structure, n: int, rng: np.random.Generator, lead: float = 0.0) -> float:
    """Share of tables in which two methods are told apart on these blocks."""
    return float(told_apart(over_seeds(differences(draw(shape, n, rng, lead))), shape.seeds).mean())


def alarms_beyond(shape: Structure, n: int, rng: np.random.Generator, lead: float = 0.0) -> float:
    """Share of tables in which two methods are told apart beyond these blocks."""
    values = shape.data_sets if shape.data_sets > 1 else shape.seeds
    return float(told_apart(beyond(differences(draw(shape, n, rng, lead))), values).mean())


def alarms_of_bootstrap(shape: Structure, n: int, rng: np.random.Generator) -> float:
    """Share of tables in which the percentile interval over data sets, rates and seeds excludes zero."""
    tables, count = differences(draw(shape, n, rng)), 0
    tail = resampling.expanded_tail(shape.data_sets if shape.data_sets > 1 else shape.seeds, ALPHA / 2)
    for k in range(n):
        means = resampling._resampled_means([list(values[k]) for values in tables], rng, 1_000)
        low, high = np.quantile(means, [tail, 1 - tail])
        count += bool(low > 0 or high < 0)
    return count / n


def alarms_of_many(shape: Structure, n: int, rng: np.random.Generator, further: bool = False) -> float:
    """Share of tables in which any two of several equal methods are told apart, adjusted by Holm, whose first step decides it."""
    tables = draw(shape, n, rng)
    pairs = list(combinations(range(shape.methods), 2))
    values = shape.data_sets if further and shape.data_sets > 1 else shape.seeds
    found = np.zeros(n)
    for first, second in pairs:
        chosen = differences(tables, first, second)
        found = np.maximum(found, told_apart(beyond(chosen) if further else over_seeds(chosen), values, len(pairs)))
    return float(found.mean())


def alarms_of_ranks(shape: Structure, n: int, rng: np.random.Generator) -> tuple[float, float]:
    """Share of tables in which Friedman's test over blocks rejects, and in which Nemenyi's separates any two of several equal methods."""
    blocks = np.concatenate([scores.mean(axis=2) for scores in draw(shape, n, rng)], axis=1)  # [n, blocks, methods]
    ranks = stats.rankdata(blocks, axis=2).mean(axis=1)
    count, k = blocks.shape[1], shape.methods
    chi = 12 * count / (k * (k + 1)) * ((ranks - (k + 1) / 2) ** 2).sum(axis=1)
    spread = ranks.max(axis=1) - ranks.min(axis=1)
    return float((stats.chi2.sf(chi, k - 1) < ALPHA).mean()), float((spread > critical_difference(k, count)).mean())


def alarms_of_rank_bootstrap(shape: Structure, n: int, rng: np.random.Generator, resamples: int = 500) -> float:
    """Share of tables in which the bootstrap intervals of the ranks of any two of several equal methods have no rank in common."""
    tables, count = draw(shape, n, rng), 0
    for k in range(n):
        means = joint_means([scores[k] for scores in tables], rng, resamples)
        low, high = np.quantile(stats.rankdata(-means, axis=1), [0.025, 0.975], axis=0)
        count += bool(low.max() > high.min())
    return count / n


NULLS: dict[str, Structure] = {
    "rates correlated by seed": Structure(),
    "rates strongly correlated (0.8)": Structure(of_run=0.5),
    "rates independent": Structure(of_seed=0.0),
    "uneven spread": Structure(uneven=True),
    "heavy tails": Structure(heavy=True),
    "uneven, four rates": Structure(uneven=True, rates=4),
}
VARIED: dict[str, Structure] = {
    "methods vary by rate (1)": Structure(of_rate=1.0),
    "methods vary by data set (1)": Structure(of_data_set=1.0),
    "by data set (3) and rate (1)": Structure(of_data_set=3.0, of_rate=1.0),
    "by data set (3), uneven": Structure(of_data_set=3.0, uneven=True),
}
SIZES = (1, 2, 3, 5)
FURTHER = (1, 3, 5)  # two data sets tell nothing apart beyond them
SEEDS = (3, 5)
EFFECTS = (0.5, 1.0, 1.5, 2.0, 3.0)


def cell(name: str, shape: Structure) -> np.random.Generator:
    """Of its own for each entry, so that one can be recomputed alone."""
    return generator(f"{name} {shape}")


def percent(share: float) -> str:
    """``4.9``."""
    return f"{100 * share:.1f}"


def pair_rows(n: int) -> Iterator[list[str]]:
    """Two equal methods: false alarms here and beyond."""
    for seeds in SEEDS:
        block = replace(Structure(), rates=1, seeds=seeds)
        yield ["one block", str(seeds), percent(alarms_here(block, n, cell("here", block))), *["-"] * 6]
        for name, base in (NULLS | VARIED).items():
            row = [name, str(seeds)]
            for size in SIZES:
                shape = replace(base, data_sets=size, seeds=seeds)
                row.append(percent(alarms_here(shape, n, cell("here", shape))) if name in NULLS else "-")
            for size in FURTHER:
                shape = replace(base, data_sets=size, seeds=seeds)
                none = "data set" in name and size == 1
                row.append("-" if none else percent(alarms_beyond(shape, n, cell("beyond", shape))))
            yield row


def bootstrap_rows(n: int) -> Iterator[list[str]]:
    """The same for the percentile interval."""
    for seeds in SEEDS:
        block = replace(Structure(), rates=1, seeds=seeds)
        yield ["one block", str(seeds), percent(alarms_of_bootstrap(block, n, cell("bootstrap", block))), *["-"] * 3]
        for name in ("rates correlated by seed", "uneven spread", "by data set (3) and rate (1)"):
            base = (NULLS | VARIED)[name]
            shapes = [replace(base, data_sets=size, seeds=seeds) for size in SIZES]
            yield [name, str(seeds), *(
                "-" if "data set" in name and shape.data_sets == 1 else percent(alarms_of_bootstrap(shape, n, cell("bootstrap", shape)))
                for shape in shapes
            )]  # fmt: skip


def many_rows(n: int) -> Iterator[list[str]]:
    """Several equal methods: any two told apart."""
    for methods in (3, 6, 12):
        for seeds in SEEDS:
            for size in (1, 3, 5):
                shape = Structure(data_sets=size, seeds=seeds, methods=methods)
                uneven = replace(shape, uneven=True)
                friedman, nemenyi = alarms_of_ranks(shape, n, cell("friedman", shape))
                yield [
                    str(methods), str(seeds), str(size), percent(alarms_of_many(shape, n, cell("many", shape))),
                    percent(alarms_of_many(uneven, n, cell("many", uneven))),
                    percent(alarms_of_many(shape, n, cell("many beyond", shape), True)), percent(friedman), percent(nemenyi),
                    percent(alarms_of_rank_bootstrap(shape, max(n // 20, 20), cell("rank bootstrap", shape))),
                ]  # fmt: skip


def power_rows(n: int) -> Iterator[list[str]]:
    """Effects in standard deviations of a seed's difference (mean over the rates of its data set)."""
    for size in SIZES:
        for seeds in (3, 5, 10):
            shape = Structure(data_sets=size, seeds=seeds)
            unit = np.sqrt(2 * (shape.of_seed**2 + shape.of_run**2 / shape.rates))
            here = [percent(alarms_here(shape, n, cell("power", shape), effect * unit)) for effect in EFFECTS]
            yield [str(size), str(seeds), *here]


def further_rows(n: int) -> Iterator[list[str]]:
    """Effects in standard deviations of a data set's difference (mean over its rates and seeds)."""
    for size in (3, 4, 5, 6, 8, 12):
        shape = Structure(data_sets=size, of_data_set=3.0)
        unit = np.sqrt(2 * (9 + (shape.of_seed**2 + shape.of_run**2 / shape.rates) / shape.seeds))
        yield [str(size), *(percent(alarms_beyond(shape, n, cell("power", shape), effect * unit)) for effect in EFFECTS)]  # fmt: skip


def _sets(size: int) -> str:
    return "1 set" if size == 1 else f"{size} sets"


def show(title: str, head: Sequence[str], rows: Iterator[list[str]]) -> None:
    """One table, as it is done."""
    print(f"### {title}\n\n{tabulate(list(rows), head, 'github', disable_numparse=True)}\n", flush=True)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=20_000, help="simulated per entry (default: %(default)s)")
    n = parser.parse_args().tables
    sets = [_sets(size) for size in SIZES]
    show(
        "Two equal methods told apart, %",
        ["structure", "seeds", *(f"here, {one}" for one in sets), *(f"beyond, {_sets(size)}" for size in FURTHER)],
        pair_rows(n),
    )
    show("The same by the percentile bootstrap, %", ["structure", "seeds", *sets], bootstrap_rows(max(n // 10, 50)))
    head = ["methods", "seeds", "sets", "here", "here, uneven", "beyond", "Friedman", "Nemenyi", "rank bootstrap"]
    show("Any two of several equal methods told apart, %", head, many_rows(max(n // 2, 50)))
    effects = [f"{effect:g} SD" for effect in EFFECTS]
    show("Power on these blocks, %", ["sets", "seeds", *effects], power_rows(n))
    show("Power beyond them, %", ["sets", *effects], further_rows(n))


if __name__ == "__main__":
    main()
