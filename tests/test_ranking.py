"""Rank intervals and groups of ties: by hand, and against all subsets of methods."""

from __future__ import annotations

from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nocobench.analysis.intervals import Interval
from nocobench.analysis.ranking import RankInterval, bootstrap_ranks, joint_means, rank_intervals, tie_groups
from nocobench.analysis.significance import Comparison, compare_all, scores
from sample_frames import frame_of, grid

HERE, BEYOND = Comparison.told_apart_here, Comparison.told_apart
NAMES = "abcde"


def pair(first: str, second: str, mean: float, p: float, runs: int = 5) -> Comparison:
    interval = Interval(mean, np.nan, np.nan, runs=runs)
    return Comparison(first, second, interval, interval, p, p, 1.0, 1.0, 0.0, 0, 1, 1, (runs, runs))


def pairs_of(apart: set[tuple[str, str]], names: str = NAMES) -> list[Comparison]:
    """Earlier names are better; those in ``apart`` are told apart."""
    return [pair(a, b, 1.0, 0.01 if (a, b) in apart else 0.5) for a, b in combinations(names, 2)]


def test_ranks_by_hand() -> None:
    """a beats c, d, e; b beats e; nothing else is known."""
    pairs = pairs_of({("a", "c"), ("a", "d"), ("a", "e"), ("b", "e")})
    found = rank_intervals(NAMES, pairs, HERE)
    assert {name: str(one) for name, one in found.items()} == {
        "a": "1-2",
        "b": "1-4",
        "c": "2-5",
        "d": "2-5",
        "e": "3-5",
    }
    assert found["e"] == RankInterval(3, 5)
    upside_down = rank_intervals(NAMES, pairs, HERE, higher_is_better=False)
    assert {name: str(one) for name, one in upside_down.items()} == {
        "a": "4-5", "b": "2-5", "c": "1-4", "d": "1-4", "e": "1-3",
    }  # fmt: skip


def test_all_apart_and_none() -> None:
    everything = pairs_of(set(combinations(NAMES, 2)))
    assert [str(one) for one in rank_intervals(NAMES, everything, HERE).values()] == list("12345")
    assert tie_groups(NAMES, everything, HERE) == [(name,) for name in NAMES]
    assert set(map(str, rank_intervals(NAMES, pairs_of(set()), HERE).values())) == {"1-5"}
    assert tie_groups(NAMES, pairs_of(set()), HERE) == [tuple(NAMES)]
    assert tie_groups(NAMES, [], HERE) == [tuple(NAMES)]  # no common runs: not told apart


def test_two_runs_are_too_few_whatever_p_says() -> None:
    assert tie_groups("ab", [pair("a", "b", 1.0, 1e-9, runs=2)], BEYOND) == [("a", "b")]


def test_groups_by_hand() -> None:
    """a and c are told apart, b from neither: b stands in both groups."""
    assert tie_groups("abc", pairs_of({("a", "c")}, "abc"), HERE) == [("a", "b"), ("b", "c")]
    # Not a line: a and d are tied, b and c between them are told apart from each other only.
    assert tie_groups("abcd", pairs_of({("b", "c")}, "abcd"), HERE) == [("a", "b", "d"), ("a", "c", "d")]


@settings(max_examples=60, deadline=None)
@given(st.sets(st.sampled_from(list(combinations("abcdef", 2)))))
def test_groups_against_all_subsets(apart: set[tuple[str, str]]) -> None:
    subsets = [set(one) for one in chain.from_iterable(combinations("abcdef", size) for size in range(1, 7))]
    fit = [one for one in subsets if not any(set(two) <= one for two in apart)]
    largest = sorted(sorted(one) for one in fit if not any(one < other for other in fit))
    found = tie_groups("abcdef", pairs_of(apart, "abcdef"), HERE)
    assert [list(group) for group in found] == largest
    for a, b in combinations("abcdef", 2):  # what the report says of groups
        assert any({a, b} <= set(group) for group in found) is ((a, b) not in apart)


def test_ranks_of_records(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cells = {(name, 0.4): mean + rng.normal(0, 1, 5) for name, mean in (("a", 100), ("b", 100), ("c", 60), ("d", 20))}
    table = scores(frame_of(tmp_path, grid(cells)))
    pairs = compare_all(table)
    found = {name[0]: str(one) for name, one in rank_intervals(table.methods, pairs, HERE).items()}
    assert found == {"a": "1-2", "b": "1-2", "c": "3", "d": "4"}
    assert [len(group) for group in tie_groups(table.methods, pairs, HERE)] == [2, 1, 1]


# --- resampled ranks


def test_resampled_ranks_by_hand(tmp_path: Path) -> None:
    """a has 0 and 10, b 5 twice: a is behind, level and ahead in 1/4, 1/2 and 1/4 of the resamples; c is always last.

    2,000 draws have a standard error of at most 0.011; four of them."""
    table = scores(frame_of(tmp_path, grid({("a", 0.4): [0, 10], ("b", 0.4): [5, 5.0001], ("c", 0.4): [-9, -8]})))
    found = bootstrap_ranks(table)
    assert found.loc["c@paper"].tolist() == [3.0, 3.0, 0.0]
    assert found.loc["a@paper", ["low", "high"]].tolist() == [1.0, 2.0]
    level = scores(frame_of(tmp_path / "level", grid({("a", 0.4): [0, 10], ("b", 0.4): [5, 5], ("c", 0.4): [-9, -8]})))
    assert bootstrap_ranks(level)["first"].to_numpy() == pytest.approx([0.5, 0.5, 0.0], abs=0.045)


def test_resampled_means_by_closed_form() -> None:
    """As for the bootstrap of differences: rates 0, 3, 6, 9 plus seeds 0, 1, 5, 6, 8 give the mean a variance of 11.25/4 + 9.2/5."""
    values = np.array([0.0, 3.0, 6.0, 9.0])[:, None] + np.array([0.0, 1.0, 5.0, 6.0, 8.0])
    means = joint_means([np.stack([values, 2 * values], axis=-1)], np.random.default_rng(0), 20_000)
    assert means[:, 0].var() == pytest.approx(4.6525, rel=0.04)
    assert means[:, 1] == pytest.approx(2 * means[:, 0])  # the same draws for all methods


def test_methods_without_common_runs_have_no_resampled_ranks(tmp_path: Path) -> None:
    frame = frame_of(tmp_path, grid({("a", 0.2): [1, 2, 3], ("b", 0.4): [1, 2, 3]}))
    assert bootstrap_ranks(scores(frame)).empty
