"""Power against statsmodels; by simulation: false alarms of everything that is printed as "told apart", and what power there is."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from nocobench.analysis.intervals import Interval, over_seeds
from nocobench.analysis.power import MOST, power_of, runs_needed, shift_interval
from nocobench.analysis.resampling import generator
from scipy import stats
from statsmodels.stats.power import TTestPower

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "power.py"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_of_power", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


simulation = load_script()


# --- power and numbers of runs


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
@pytest.mark.parametrize("effect", [0.0, 0.4, 1.0, 3.0])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_power_against_statsmodels(seeds: int, effect: float, alpha: float) -> None:
    expected = np.nan_to_num(TTestPower().power(effect, seeds, alpha), nan=1.0)  # it underflows for the largest
    assert power_of(effect * np.sqrt(seeds), seeds - 1, alpha) == pytest.approx(expected, abs=1e-8)


def interval_of(effect: float, seeds: int) -> Interval:
    """Of a mean of ``effect`` with standard deviation 1."""
    return Interval(effect, np.nan, np.nan, runs=seeds, error=1 / np.sqrt(seeds), df=seeds - 1)


@pytest.mark.parametrize("effect", [0.35, 0.5, 1.0, 1.7, -1.0])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 21])
def test_needed_runs_against_statsmodels(effect: float, alpha: float) -> None:
    expected = int(np.ceil(TTestPower().solve_power(abs(effect), power=0.8, alpha=alpha)))
    found = runs_needed(interval_of(effect, 5), alpha)
    assert found is not None
    assert found.as_seen == (expected if expected <= MOST else None)
    assert found.more() == (None if expected > MOST else max(expected - 5, 0))


def test_needed_runs_at_the_ends() -> None:
    small = runs_needed(interval_of(0.01, 5))
    assert small is not None
    assert (small.as_seen, small.high, small.more()) == (None, None, None)  # not within 100
    assert small.low is not None  # the difference might be large and hidden
    large = runs_needed(interval_of(50.0, 5))
    assert large is not None
    assert (large.as_seen, large.more(), large.low) == (3, 0, 3)
    no_spread, no_interval = Interval(1.0, 1.0, 1.0, runs=5, error=0.0, df=4), Interval(1.0, np.nan, np.nan, runs=5)
    for nothing in (interval_of(1.0, 1), no_spread, no_interval):
        assert runs_needed(nothing) is None
    assert runs_needed(replace(interval_of(1.0, 5), over="rates")) is None


@pytest.mark.parametrize(("shift", "df"), [(0.0, 4), (1.5, 2), (4.0, 4), (30.0, 9), (900.0, 2)])
def test_interval_of_the_shift_by_its_definition(shift: float, df: int) -> None:
    low, high = shift_interval(shift, df)
    assert stats.nct.cdf(shift, df, high) == pytest.approx(0.025, abs=1e-6)
    if low:
        assert stats.nct.cdf(shift, df, low) == pytest.approx(0.975, abs=1e-6)
    else:
        assert stats.t.cdf(shift, df) <= 0.975


def test_the_range_holds_the_true_number_of_runs() -> None:
    """A true effect of 1.2 needs 8 seeds. From 5 seeds, the range holds that in 95 % of cases; 400 simulations have a standard error of
    1.1 %. The number for the difference as seen hits 8 +- 2 in fewer than half of them: that is why a range is printed."""
    truth = int(np.ceil(TTestPower().solve_power(1.2, power=0.8, alpha=0.05)))
    rng, held, near = np.random.default_rng(0), 0, 0
    for _ in range(400):
        found = runs_needed(over_seeds([rng.normal(1.2, 1.0, (1, 5))]).interval(5, "seeds"))
        assert found is not None
        assert found.low is not None
        held += found.low <= truth <= (found.high or 10**9)
        near += abs((found.as_seen or 10**9) - truth) <= 2
    assert held / 400 == pytest.approx(0.95, abs=0.035)
    assert near / 400 < 0.5


# --- false alarms: the bounds of 3 and 7 % hold for the shares of 20,000 simulated tables (standard error 0.15 %)

TABLES = 20_000
STRUCTURES = {name: simulation.NULLS[name] for name in ("rates correlated by seed", "rates independent", "uneven, four rates")}  # fmt: skip


@pytest.mark.parametrize("seeds", [3, 5])
def test_equal_methods_in_one_block(seeds: int) -> None:
    shape = simulation.Structure(rates=1, seeds=seeds)
    assert simulation.alarms_here(shape, TABLES, generator(f"block {seeds}")) == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("data_sets", [1, 2, 3, 5])
@pytest.mark.parametrize("name", STRUCTURES)
def test_equal_methods_on_these_blocks(name: str, data_sets: int, seeds: int) -> None:
    shape = replace(STRUCTURES[name], data_sets=data_sets, seeds=seeds)
    assert 0.03 <= simulation.alarms_here(shape, TABLES, generator(f"here {shape}")) <= 0.07


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("data_sets", [1, 3, 5])
@pytest.mark.parametrize("name", [*STRUCTURES, "by data set (3) and rate (1)"])
def test_equal_methods_beyond_them(name: str, data_sets: int, seeds: int) -> None:
    base = (simulation.NULLS | simulation.VARIED)[name]
    shape = replace(base, data_sets=data_sets, seeds=seeds, of_data_set=base.of_data_set if data_sets > 1 else 0.0)
    assert 0.03 <= simulation.alarms_beyond(shape, TABLES, generator(f"beyond {shape}")) <= 0.07


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("methods", [3, 6])
@pytest.mark.parametrize(("data_sets", "uneven"), [(1, False), (2, True), (3, True)])
def test_any_two_of_several_equal_methods(methods: int, data_sets: int, uneven: bool, seeds: int) -> None:
    """Adjusted by Holm: the chance that any of the pairs is told apart."""
    shape = simulation.Structure(data_sets=data_sets, seeds=seeds, methods=methods, uneven=uneven)
    assert 0.03 <= simulation.alarms_of_many(shape, 6_000, generator(f"many {shape}")) <= 0.07


def test_two_data_sets_or_two_seeds_tell_nothing() -> None:
    """Not even what could not be clearer: the wording says that there are too few."""
    shape = simulation.Structure(data_sets=2)
    assert simulation.alarms_beyond(shape, 100, generator("two"), lead=1000.0) == 0.0
    assert simulation.alarms_here(replace(shape, seeds=2), 100, generator("two"), lead=1000.0) == 0.0


def test_what_papers_print_raises_false_alarms() -> None:
    """Friedman and Nemenyi over rates that share their seeds; the bootstrap over two data sets. Printed, but nothing rests on them."""
    friedman, nemenyi = simulation.alarms_of_ranks(simulation.Structure(methods=6), 2_000, generator("ranks"))
    assert min(friedman, nemenyi) > 0.3
    varied = simulation.Structure(data_sets=2, of_data_set=3.0)
    assert simulation.alarms_of_bootstrap(varied, 200, generator("bootstrap")) > 0.12


def test_friedman_is_right_where_blocks_are_independent() -> None:
    """So what is wrong above are the blocks, not this implementation: one rate each of 20 data sets."""
    shape = simulation.Structure(data_sets=20, rates=1, seeds=3, methods=5)
    friedman, nemenyi = simulation.alarms_of_ranks(shape, 4_000, generator("independent"))
    assert friedman == pytest.approx(0.05, abs=0.012)
    assert nemenyi == pytest.approx(0.045, abs=0.015)


# --- power


@pytest.mark.parametrize(("seeds", "effect"), [(3, 3.0), (5, 1.0), (5, 2.0), (10, 0.5)])
def test_power_of_one_data_set_is_the_one_by_formula(seeds: int, effect: float) -> None:
    shape = simulation.Structure(seeds=seeds)
    unit = np.sqrt(
        2 * (1 + 1 / 5)
    )  # of a seed's difference: two methods, what a seed adds to all rates, and a fifth of the rest
    found = simulation.alarms_here(shape, 10_000, generator(f"power {shape} {effect}"), effect * unit)
    assert found == pytest.approx(TTestPower().power(effect, seeds, 0.05), abs=0.016)


def test_simulated_runs_are_correlated_as_said() -> None:
    """What a seed adds to all rates (1) and what a run adds (1): rates of a method correlate by 0.5 over seeds."""
    (values,) = simulation.draw(simulation.Structure(rates=2, seeds=3), 20_000, np.random.default_rng(0))
    assert np.corrcoef(values[:, 0, :, 0].ravel(), values[:, 1, :, 0].ravel())[0, 1] == pytest.approx(0.5, abs=0.01)
    assert np.corrcoef(values[:, 0, 0, 0], values[:, 0, 0, 1])[0, 1] == pytest.approx(0.0, abs=0.03)


@pytest.mark.slow
def test_the_script_prints_its_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["power.py", "--tables", "20"])
    simulation.main()
    printed = capsys.readouterr().out
    titles = [line for line in printed.splitlines() if line.startswith("### ")]
    assert len(titles) == 5
    page = (SCRIPT.parents[1] / "docs" / "statistics.md").read_text(encoding="utf-8")
    assert all(title.removeprefix("### ") in page for title in titles)  # the page shows what the script prints
