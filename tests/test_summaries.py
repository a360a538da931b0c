"""Few-run summaries against closed forms and scipy, and by simulation; the whole summary of a frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nocobench.analysis.frame import AnalysisError
from nocobench.analysis.intervals import Interval, over_seeds
from nocobench.analysis.resampling import generator, resampled_interval
from nocobench.analysis.significance import scores
from nocobench.analysis.significance_report import significance_report
from nocobench.analysis.summaries import (
    anchors,
    gap_interval,
    iqm_interval,
    performance_profiles,
    summarise,
)
from sample_frames import frame_of, grid
from scipy import stats

Blocks = Sequence[np.ndarray]


def mean_of(blocks: Blocks) -> np.ndarray:
    return np.mean([block[:, :, 0].mean(axis=1) for block in blocks], axis=0)


# --- the interval for any statistic


@pytest.mark.parametrize("sizes", [[(2, 3)], [(4, 5)], [(3, 3), (1, 5), (2, 4)]])
def test_interval_of_a_mean_is_students(sizes: list[tuple[int, int]]) -> None:
    """20,000 resamples know the error to within 0.5 % (standard error 1 / sqrt(2 * 20,000)); four of them, both ends."""
    rng = np.random.default_rng(0)
    data = [rng.normal(3.0, 1.0, size) for size in sizes]
    expected = over_seeds(data).interval(3, "seeds")
    runs = [[block[:, None] for block in values] for values in data]
    mean, low, high = resampled_interval(runs, mean_of, generator("x"), 20_000)
    assert float(mean) == pytest.approx(expected.mean)
    assert float(high - low) == pytest.approx(expected.high - expected.low, rel=0.02)


def test_error_by_all_resamples_of_two_seeds() -> None:
    """Largest of 0 and 2: of four resamples three have 2, one 0; variance 0.75, widened by 2; Student with one degree of freedom."""
    runs = [[np.array([[0.0], [2.0]])]]
    value, low, high = resampled_interval(runs, lambda blocks: blocks[0][:, :, 0].max(axis=1), generator("x"), 40_000)
    assert float(value) == 2.0
    assert float(high - low) / 2 == pytest.approx(stats.t.isf(0.025, 1) * np.sqrt(1.5), rel=0.02)


def test_seeds_are_shared_by_the_blocks_of_a_data_set() -> None:
    """Blocks with opposite numbers: their mean is the same whatever seeds are drawn, if they are drawn together."""
    values = np.array([[0.0], [5.0], [9.0]])
    _, low, high = resampled_interval([[values, -values]], mean_of, generator("x"))
    assert float(high - low) == pytest.approx(0.0, abs=1e-9)
    _, low, high = resampled_interval([[values], [-values]], mean_of, generator("x"))
    assert float(high - low) > 1


def test_a_single_seed_has_no_interval() -> None:
    _, low, high = resampled_interval([[np.array([[1.0]])], [np.array([[1.0], [2.0]])]], mean_of, generator("x"))
    assert np.isnan([low, high]).all()


# --- interquartile mean


def frame_with(tmp_path: Path, cells: dict, **options: object) -> pd.DataFrame:
    return frame_of(tmp_path, grid(cells, **options))  # type: ignore[arg-type]


def test_interquartile_mean_of_records(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(100, 5, (2, 5))
    cells = {("a", 0.2): values[0], ("a", 0.4): values[1], ("b", 0.2): [1, 2, 3, 4, 5]}
    table = scores(frame_with(tmp_path, cells))
    found = iqm_interval(table, "a@paper")
    assert found.mean == pytest.approx(stats.trim_mean(values.ravel(), 0.25))
    assert found.low < found.mean < found.high
    assert found.runs == 5
    collapsed = values.copy()
    collapsed[0, 3] = 0.0
    cells |= {("a", 0.2): collapsed[0]}
    assert iqm_interval(scores(frame_with(tmp_path / "b", cells)), "a@paper").mean == pytest.approx(found.mean, abs=2.5)


@pytest.mark.parametrize("seeds", [3, 5])
def test_interquartile_mean_is_covered(seeds: int) -> None:
    """Normal runs of five rates that differ by 3 standard deviations, sharing what the seed adds; the truth is the mean over 5,000 tables.
    300 simulations have a standard error of 1.3 % at 95 %; the interval is not exact, 91 to 99 % are allowed."""
    rng = np.random.default_rng(seeds)

    def runs(n: int) -> np.ndarray:
        return 3.0 * np.arange(5)[:, None] + rng.normal(0, 1, (1, n)) + rng.normal(0, 1, (5, n))

    def middle(blocks: Blocks) -> np.ndarray:
        return stats.trim_mean(np.concatenate([block[:, :, 0] for block in blocks], axis=1), 0.25, axis=1)

    truth = np.mean([stats.trim_mean(runs(seeds).ravel(), 0.25) for _ in range(5_000)])
    hits = 0
    for _ in range(300):
        _, low, high = resampled_interval([[block[:, None] for block in runs(seeds)]], middle, rng, 200)
        hits += bool(low <= truth <= high)
    assert hits / 300 == pytest.approx(0.95, abs=0.04)


# --- share of the gap


def gap_frame(tmp_path: Path, method: list[float], blind: list[float], oracle: list[float]) -> pd.DataFrame:
    records = grid({("npc", 0.4): method, ("clip", 0.4): blind})
    return frame_of(tmp_path, [*records, *grid({("oracle_clean", 0.4): oracle}, flags=("oracle",))])


def test_gap_share_of_records(tmp_path: Path) -> None:
    """Means 15, 10, 30: a quarter of the gap. The anchors are at 0 and 1 for certain."""
    table = scores(gap_frame(tmp_path, [14, 15, 16], [9, 10, 11], [29, 31, 30]))
    assert anchors(table) == ("clip@paper", "oracle_clean@paper")
    found = gap_interval(table, "npc@paper")
    assert found is not None
    assert found.mean == pytest.approx(0.25)
    assert found.low < 0.25 < found.high
    for name, share in (("clip@paper", 0.0), ("oracle_clean@paper", 1.0)):
        end = gap_interval(table, name)
        assert end is not None
        assert (end.mean, end.low, end.high) == (share, share, share)


def test_no_gap(tmp_path: Path) -> None:
    assert gap_interval(scores(gap_frame(tmp_path, [14, 15], [30, 31], [30, 31])), "npc@paper") is None
    bare = scores(frame_with(tmp_path / "b", {("npc", 0.4): [1, 2], ("clip", 0.4): [1, 2]}))
    assert (anchors(bare), gap_interval(bare, "npc@paper")) == (None, None)


@pytest.mark.parametrize("seeds", [3, 5])
def test_gap_share_is_covered(seeds: int, tmp_path: Path) -> None:
    """A true share of 0.4, gap 10, runs with standard deviation 1; 500 simulations, standard error 1 %. Against Fieller's exact interval,
    which holds the share where Student's test of (score - blind) - share * (oracle - blind) does not reject: 95 %."""
    rng, hits, fieller = np.random.default_rng(seeds), 0, 0

    def closed(blocks: Blocks) -> np.ndarray:
        score, blind, oracle = blocks[0].mean(axis=1).T
        return (score - blind) / (oracle - blind)

    for _ in range(500):
        runs = rng.normal([14.0, 10.0, 20.0], 1.0, (seeds, 3))
        _, low, high = resampled_interval([[runs]], closed, rng, 200)
        hits += bool(low <= 0.4 <= high)
        fieller += stats.ttest_1samp(runs[:, 0] - runs[:, 1] - 0.4 * (runs[:, 2] - runs[:, 1]), 0.0).pvalue > 0.05
    assert fieller / 500 == pytest.approx(0.95, abs=0.03)
    assert hits / 500 == pytest.approx(0.95, abs=0.04)


# --- performance profiles


def test_profile_by_hand(tmp_path: Path) -> None:
    """Best means are 20 and 100. a has 1.0 +- 0.1 and 0.4, 0.6; b has 0.5 and 1.0: half of its runs each."""
    cells = {("a", 0.2): [18, 22], ("b", 0.2): [10, 10], ("a", 0.4): [40, 60], ("b", 0.4): [100, 100]}
    found = performance_profiles(scores(frame_with(tmp_path, cells)))
    for name, runs in (("a@paper", [0.9, 1.1, 0.4, 0.6]), ("b@paper", [0.5, 0.5, 1.0, 1.0])):
        expected = [np.mean([run >= level - 1e-9 for run in runs]) for level in found[name].thresholds]
        assert found[name].share == pytest.approx(expected)
        assert (np.diff(found[name].share) <= 0).all()
        assert (found[name].low <= found[name].share).all()
        assert (found[name].share <= found[name].high).all()
    assert found["a@paper"].thresholds[[0, -1]] == pytest.approx([0.4, 1.1])
    assert found["b@paper"].low == pytest.approx(found["b@paper"].high)  # both seeds are the same


def test_oracles_do_not_set_the_best(tmp_path: Path) -> None:
    found = performance_profiles(scores(gap_frame(tmp_path, [10, 10, 10], [5, 5, 5], [20, 20, 20])))
    assert found["oracle_clean@paper"].thresholds[-1] == pytest.approx(2.0)
    assert found["oracle_clean@paper"].share == pytest.approx(np.ones(101))


def test_profile_where_lower_is_better(tmp_path: Path) -> None:
    from nocobench.results.record import Circumstances
    from sample_records import make_record

    records = [
        make_record(method=name, seed=seed, circumstances=Circumstances(seconds={"train": seconds}))
        for name, seconds in (("slow", 40.0), ("fast", 10.0))
        for seed in range(3)
    ]
    found = performance_profiles(scores(frame_of(tmp_path, records), measure="seconds"))
    assert found["slow@paper"].thresholds[0] == pytest.approx(0.25)
    assert found["fast@paper"].share == pytest.approx(np.ones(101))


def test_no_profile_of_scores_that_are_not_positive(tmp_path: Path) -> None:
    assert performance_profiles(scores(frame_with(tmp_path, {("a", 0.2): [0, 1], ("b", 0.2): [1, 2]}))) == {}


# --- all of it


def whole(tmp_path: Path) -> pd.DataFrame:
    rng, records = np.random.default_rng(5), []
    for k, dataset in enumerate(("digits", "emoji", "cub")):
        cells: dict = {}
        for rate in (0.2, 0.4):
            wobble = rng.normal(0, 1, (3, 5))
            for row, (name, lead) in enumerate((("clip", 0), ("npc", 12), ("decl", 12.5))):
                cells[name, rate] = 100 + 20 * k + lead + wobble[row]
        records += grid(cells, dataset=dataset)
        top = {("oracle_clean", rate): 130 + 20 * k + rng.normal(0, 1, 5) for rate in (0.2, 0.4)}
        records += grid(top, dataset=dataset, flags=("oracle",))
    return frame_of(tmp_path, records)


def test_summary_of_a_frame(tmp_path: Path) -> None:
    found = summarise(whole(tmp_path), points=3.0)
    names = [one.name for one in found.standings]
    assert names == found.table.methods
    assert names[0] == "oracle_clean@paper"
    assert set(names[1:3]) == {"npc@paper", "decl@paper"}
    assert [str(one.here) for one in found.standings] == ["1", "2-3", "2-3", "4"]
    assert [str(one.beyond) for one in found.standings] == ["1", "2-3", "2-3", "4"]
    assert found.groups_here == (("oracle_clean@paper",), tuple(names[1:3]), ("clip@paper",))
    assert found.anchors == ("clip@paper", "oracle_clean@paper")
    npc = next(one for one in found.standings if one.name == "npc@paper")
    assert npc.gap is not None
    assert npc.gap.low < 0.4 < npc.gap.high
    assert (npc.runs, npc.oracle, npc.average_rank >= 2) == (30, False, True)
    assert [(one.pair.told_apart_here(), one.seeds is None, one.data_sets is None) for one in found.neighbours] == [
        (False, False, False),
        (True, True, True),
    ]
    equal = next(one for one in found.equivalences if {one.first, one.second} == {"npc@paper", "decl@paper"})
    assert equal.here is not None
    assert equal.here.verdict(family=equal.family) == "equal"
    assert set(found.profiles) == set(names)
    assert found.ranking is not None
    assert found.resampled_ranks.loc["oracle_clean@paper"].tolist() == [1.0, 1.0, 1.0]
    assert list(found.resampled_ranks.index) == names


def test_summary_is_the_same_for_rows_in_any_order(tmp_path: Path) -> None:
    frame = whole(tmp_path)
    expected = summarise(frame, points=3.0)
    for seed in range(2):
        np.random.seed(seed)  # noqa: NPY002
        found = summarise(frame.sample(frac=1, random_state=seed), points=3.0)
        assert found.standings == expected.standings
        assert found.pairs == expected.pairs
        assert found.equivalences == expected.equivalences
        assert found.neighbours == expected.neighbours
        assert found.resampled_ranks.equals(expected.resampled_ranks)
        for name, profile in expected.profiles.items():
            assert found.profiles[name].low.tobytes() == profile.low.tobytes()


def test_report_prints_what_the_summary_holds(tmp_path: Path) -> None:
    frame = whole(tmp_path)
    found, text = summarise(frame, profiles=False), significance_report(frame).text()
    assert found.profiles == {}
    for one in found.standings:
        assert f"{one.iqm.mean:.1f} [{one.iqm.low:.1f}, {one.iqm.high:.1f}]" in text
    table = next(section.table for section in significance_report(frame).sections if section.title == "Methods")
    assert table is not None
    assert table["may rank here"].tolist() == ["1", "2-3", "2-3", "4"]
    assert table["of gap"].str.startswith(("100 %", "4", "0 %")).all()
    words = " ".join(text.split())
    assert "On these data sets and rates: (1) ORACLE_CLEAN, (2) " in words
    assert "more seeds per data set" in words or "not within 100 seeds per data set" in words


def test_one_seed_each(tmp_path: Path) -> None:
    """Everything is there, and nothing is claimed."""
    found = summarise(frame_with(tmp_path, {("a", 0.2): [9], ("b", 0.2): [5], ("c", 0.2): [1]}))
    assert [str(one.here) for one in found.standings] == ["1-3"] * 3
    assert found.groups_here == (("a@paper", "b@paper", "c@paper"),)
    assert all(np.isnan(one.iqm.low) for one in found.standings)
    assert all(one.seeds is None for one in found.neighbours)
    assert isinstance(found.pairs[0].here, Interval)


def test_methods_that_share_no_block(tmp_path: Path) -> None:
    found = summarise(frame_with(tmp_path, {("a", 0.2): [1, 2, 3], ("b", 0.4): [1, 2, 3], ("c", 0.4): [4, 5, 6]}))
    assert len(found.pairs) == 1
    assert len(found.standings) == 3
    assert set(found.profiles) == {"a@paper", "b@paper", "c@paper"}
    with pytest.raises(AnalysisError, match="needs two methods"):
        summarise(frame_with(tmp_path / "one", {("a", 0.2): [1, 2, 3]}))
