"""Random numbers inside a loss: reproducible, mapped over runs without change, and evenly spread."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nocobench.methods import draws
from scipy import stats

KEY = draws.new_key(np.random.default_rng(3))


def at(counter: int) -> torch.Tensor:
    return torch.tensor(counter)


def splitmix64(state: int, n: int) -> list[int]:
    """The published algorithm in Python integers."""
    mask, found = 2**64 - 1, []
    for _ in range(n):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        found.append(z ^ (z >> 31))
    return found


def test_words_are_those_of_splitmix64() -> None:
    key, counter = int(KEY), 5
    start = splitmix64((key + 0x9E3779B97F4A7C15 * counter) & (2**64 - 1), 1)[0]
    expected = np.array(splitmix64(start, 7), dtype=np.uint64).astype(np.int64)
    assert draws.words(KEY, at(counter), (7,)).tolist() == expected.tolist()


def test_the_same_place_gives_the_same_number_and_another_one_another() -> None:
    first = draws.uniform(KEY, at(1), (4, 5))
    assert torch.equal(first, draws.uniform(KEY, at(1), (4, 5)))
    assert not (first == draws.uniform(KEY, at(2), (4, 5))).any()
    assert not (first == draws.uniform(KEY + 1, at(1), (4, 5))).any()


def test_mapping_over_runs_changes_nothing() -> None:
    keys, counters = torch.stack([KEY, KEY + 9, KEY + 4]), torch.tensor([0, 7, 7])
    for draw in (lambda k, c: draws.uniform(k, c, (6,)), lambda k, c: draws.permutation(k, c, 6)):
        mapped = torch.func.vmap(draw)(keys, counters)
        assert torch.equal(mapped, torch.stack([draw(k, c) for k, c in zip(keys, counters, strict=True)]))


def test_uniform_numbers_are_uniform() -> None:
    values = draws.uniform(KEY, at(0), (20_000,)).numpy()
    assert values.min() >= 0
    assert values.max() < 1
    assert stats.kstest(values, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.03


@pytest.mark.parametrize("high", [1, 3, 10, 4096])
def test_integers_stay_below_their_bound_and_are_even(high: int) -> None:
    values = draws.integers(KEY, at(0), high, (40_000,)).numpy()
    counts = np.bincount(values, minlength=high)
    assert len(counts) == high
    assert high == 1 or stats.chisquare(counts).pvalue > 0.01


def test_permutations_hold_every_number_once() -> None:
    found = {tuple(draws.permutation(KEY, at(c), 4).tolist()) for c in range(400)}
    assert all(sorted(one) == [0, 1, 2, 3] for one in found)
    assert len(found) == 24
