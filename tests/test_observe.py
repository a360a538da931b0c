"""The log of weights: used, excluded and not visited stay apart; AUC against scikit-learn; histograms count every pair once."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nocobench.datasets.types import OracleView
from nocobench.protocols.observe import BINS, Histograms, SignalLog, summarise
from nocobench.results.record import SignalSummary
from sklearn.metrics import roc_auc_score

CPU = torch.device("cpu")


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor([values])


def flags(*values: int) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.bool)


def oracle(*noisy: int) -> OracleView:
    return OracleView(torch.tensor(noisy, dtype=torch.bool))


def only(log: SignalLog, is_noisy: OracleView, run: int = 0) -> SignalSummary:
    (summary,) = summarise(log, run, 1, is_noisy)
    return summary


def test_three_cases_by_hand() -> None:
    """Pairs 0 and 1 used with 0.9 and 0.4, pair 2 left out by the partition, pair 3 in the subset but in a dropped batch."""
    log = SignalLog(1, 4, CPU)
    log.note_drawn("net", flags(1, 1, 0, 1))
    log.write("weight", "net", torch.tensor([[0, 1]]), tensor(0.9, 0.4), None)
    found = only(log, oracle(0, 0, 1, 1))
    assert found.visited_fraction == 3 / 4  # the excluded one was decided about: it counts with 0
    assert found.excluded_fraction == 1 / 4
    assert found.mean_clean == pytest.approx((0.9 + 0.4) / 2)
    assert found.mean_noisy == 0
    assert found.auc == 1
    histograms = Histograms((0.0, 1.0))
    histograms.add(log, 0, 1, oracle(0, 0, 1, 1))
    arrays = histograms.arrays()
    assert arrays["histogram/weight/net/clean"].sum() == 2
    # 0.9 * 256 = 230.4 and 0.4 * 256 = 102.4
    assert np.flatnonzero(arrays["histogram/weight/net/clean"][0]).tolist() == [102, 230]
    assert arrays["histogram/weight/net/noisy"].sum() == 0
    assert (arrays["excluded/weight/net/noisy"].tolist(), arrays["excluded/weight/net/clean"].tolist()) == ([1], [0])
    assert (arrays["not_visited/weight/net/noisy"].tolist(), arrays["not_visited/weight/net/clean"].tolist()) == (
        [1],
        [0],
    )


def test_stale_values_are_forgotten() -> None:
    """Epoch 1 gives noisy pairs 1 and clean ones 0.5; epoch 2 excludes the noisy ones: the AUC is 1, and 0 with carried-over values."""
    log, truth = SignalLog(1, 4, CPU), oracle(0, 0, 1, 1)
    log.write("weight", "net", torch.arange(4)[None], tensor(0.5, 0.5, 1.0, 1.0), None)
    assert only(log, truth).auc == 0
    log.begin_epoch()
    log.note_drawn("net", flags(1, 1, 0, 0))
    log.write("weight", "net", torch.tensor([[0, 1]]), tensor(0.5, 0.5), None)
    assert only(log, truth).auc == 1
    assert only(log, truth).mean_noisy == 0
    log.begin_epoch()
    assert summarise(log, 0, 3, truth) == []


def test_fill_up_pairs_and_inactive_runs_do_not_count() -> None:
    """``counted`` says which pairs of a batch count; a pair that has a value keeps it."""
    log = SignalLog(2, 3, CPU)
    log.write("loss", "net", torch.tensor([[0, 1], [2, 1]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), None)
    again = torch.tensor([[1, 2], [1, 0]])
    log.write("loss", "net", again, torch.full((2, 2), 9.0), torch.tensor([[False, True], [False, False]]))
    values = log.values[("loss", "net")]
    assert values[0].tolist() == [1.0, 2.0, 9.0]
    assert values[1, 1:].tolist() == [4.0, 3.0]
    assert values[1, 0].isnan()


def test_later_visits_win_and_subsets_add_up() -> None:
    """A pair is excluded only when it is in none of the subsets that its network draws from, and only for that network."""
    log = SignalLog(1, 3, CPU)
    log.note_drawn("a", flags(1, 0, 0))
    log.note_drawn("a", flags(0, 1, 0))
    assert log.excluded("a").tolist() == [[False, False, True]]
    assert log.excluded("b").tolist() == [[False, False, False]]
    for value in (0.2, 0.7):
        log.write("weight", "a", torch.tensor([[0]]), tensor(value), None)
    assert log.values[("weight", "a")][0, 0].item() == pytest.approx(0.7)


def test_an_excluded_pair_has_weight_0_but_no_loss() -> None:
    log = SignalLog(1, 2, CPU)
    log.note_drawn("net", flags(1, 0))
    for signal in ("weight", "loss"):
        log.write(signal, "net", torch.tensor([[0]]), tensor(0.5), None)
    loss, weight = summarise(log, 0, 1, oracle(0, 1))
    assert (loss.signal, loss.visited_fraction) == ("loss", 0.5)
    assert math.isnan(loss.mean_noisy)
    assert math.isnan(loss.auc)
    assert (weight.signal, weight.visited_fraction, weight.mean_noisy, weight.auc) == ("weight", 1, 0, 1)


def test_a_weight_that_was_used_is_not_overwritten_by_exclusion() -> None:
    """A network may weigh a pair in a pass that its masks do not name (a draw of another network): the value stays."""
    log = SignalLog(1, 2, CPU)
    log.note_drawn("net", flags(0, 0))
    log.write("weight", "net", torch.tensor([[0, 1]]), tensor(0.8, 0.6), None)
    assert only(log, oracle(0, 1)).mean_clean == pytest.approx(0.8)


def test_runs_do_not_mix() -> None:
    log = SignalLog(2, 2, CPU)
    log.write("weight", "net", torch.tensor([[0, 1], [1, 0]]), torch.tensor([[0.1, 0.2], [0.3, 0.4]]), None)
    log.write_all("clean_probability", "net", 1, torch.tensor([0.5, 0.25]))
    first, second = (summarise(log, run, 7, oracle(0, 1)) for run in (0, 1))
    assert [s.signal for s in second] == ["clean_probability", "weight"]
    assert second[0].mean_clean == 0.5
    assert second[1].mean_clean == pytest.approx(0.4)
    assert first[0].visited_fraction == 0, "nothing was noted for this run"
    assert math.isnan(first[0].auc)
    assert {s.epoch for s in first + second} == {7}


@settings(deadline=None)
@given(
    values=st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=2, max_size=40),
    noise=st.integers(0, 2**40 - 1),
    signal=st.sampled_from(["weight", "loss", "clean_probability"]),
)
def test_auc_is_that_of_scikit_learn(values: list[float], noise: int, signal: str) -> None:
    """High loss or low weight means noisy; ties count half; one class only gives NaN."""
    noisy = np.array([noise >> i & 1 for i in range(len(values))], dtype=bool)
    log = SignalLog(1, len(values), CPU)
    log.write(signal, "net", torch.arange(len(values))[None], torch.tensor([values]), None)
    found = only(log, OracleView(torch.from_numpy(noisy))).auc
    if noisy.all() or not noisy.any():
        assert math.isnan(found)
        return
    score = np.array(values) if signal == "loss" else -np.array(values)
    assert found == pytest.approx(roc_auc_score(noisy, score), abs=1e-12)


def test_real_noise_has_means_and_no_auc() -> None:
    log = SignalLog(1, 2, CPU)
    log.write("weight", "net", torch.tensor([[0, 1]]), tensor(0.5, 1.0), None)
    found = only(log, OracleView(None))
    assert found.mean_clean == 0.75
    assert math.isnan(found.mean_noisy)
    assert math.isnan(found.auc)
    histograms = Histograms((0.0, 1.0))
    histograms.add(log, 0, 1, OracleView(None))
    assert histograms.arrays() == {}


@settings(deadline=None, max_examples=50)
@given(
    values=st.lists(st.one_of(st.just(math.nan), st.floats(-1, 3, width=32)), min_size=1, max_size=30),
    noise=st.integers(0, 2**30 - 1),
    drawn=st.integers(0, 2**30 - 1),
    signal=st.sampled_from(["weight", "loss", "clean_probability"]),
)
def test_histograms_count_every_pair_once(values: list[float], noise: int, drawn: int, signal: str) -> None:
    """Values outside the edges fall into the outermost bins; what has no value is excluded or not visited."""
    n = len(values)
    noisy, inside = (np.array([number >> i & 1 for i in range(n)], dtype=bool) for number in (noise, drawn))
    log = SignalLog(1, n, CPU)
    log.note_drawn("net", torch.from_numpy(inside)[None])
    log.write_all(signal, "net", 0, torch.tensor(values))
    histograms = Histograms((0.0, 2.0))
    histograms.add(log, 0, 1, OracleView(torch.from_numpy(noisy)))
    arrays = histograms.arrays()
    for side, mask in (("clean", ~noisy), ("noisy", noisy)):
        counts = [arrays[f"{kind}/{signal}/net/{side}"] for kind in ("histogram", "excluded", "not_visited")]
        assert sum(int(count.sum()) for count in counts) == mask.sum()
        assert int(counts[0].sum()) == (~np.isnan(values) & mask).sum()
        assert int(counts[1].sum()) == (np.isnan(values) & mask & ~inside).sum()
        assert counts[0].shape == (1, BINS)
    edges = arrays[f"edges/{signal}/net"]
    assert len(edges) == BINS + 1
    assert edges[0] == 0
    largest = max([value for value in values if value > 0], default=1.0)
    assert edges[-1] == {"weight": 2.0, "clean_probability": 1.0, "loss": np.float32(largest)}[signal]


def filled(epochs: int) -> Histograms:
    """Weights in every epoch, losses from the second on."""
    histograms, log, truth = Histograms((0.0, 1.0)), SignalLog(1, 3, CPU), oracle(0, 1, 0)
    for epoch in range(1, epochs + 1):
        log.begin_epoch()
        log.write("weight", "net", torch.arange(3)[None], tensor(0.1, 0.2, 0.3 + epoch / 10), None)
        if epoch > 1:
            log.write("loss", "net", torch.arange(3)[None], tensor(1.0, 5.0 * epoch, 2.0), None)
        histograms.add(log, 0, epoch, truth)
    return histograms


def test_epochs_without_a_signal_are_rows_of_zeros() -> None:
    arrays = filled(3).arrays()
    assert arrays["signal_epochs"].tolist() == [1, 2, 3]
    assert arrays["histogram/loss/net/noisy"].sum(1).tolist() == [0, 1, 1]


def test_the_range_of_losses_doubles_and_keeps_every_pair_where_it_was() -> None:
    """Noisy losses 10 (epoch 2, range 0 to 10) and 15 (epoch 3, range 0 to 20): bins 256 * 10/20 - 1 = 127 and 256 * 15/20 = 192."""
    arrays = filled(3).arrays()
    edges, counts = arrays["edges/loss/net"], arrays["histogram/loss/net/noisy"]
    assert edges[-1] == 20
    assert np.flatnonzero(counts[1]).tolist() == [127]
    assert np.flatnonzero(counts[2]).tolist() == [192]
    # The clean losses 1 and 2 of epoch 2, counted in a range of 10, lie where a range of 20 has them.
    assert np.flatnonzero(arrays["histogram/loss/net/clean"][1]).tolist() == [int(256 * 1 / 20), int(256 * 2 / 20)]


def test_round_trip_through_a_checkpoint() -> None:
    """Two epochs, payload through JSON, a third one: the same bytes as three epochs at once."""
    straight = filled(3)
    half = filled(2)
    restored = Histograms((0.0, 1.0))
    restored.restore(json.loads(json.dumps(half.payload())))
    log = SignalLog(1, 3, CPU)
    log.write("weight", "net", torch.arange(3)[None], tensor(0.1, 0.2, 0.3 + 3 / 10), None)
    log.write("loss", "net", torch.arange(3)[None], tensor(1.0, 15.0, 2.0), None)
    restored.add(log, 0, 3, oracle(0, 1, 0))
    wanted, found = straight.arrays(), restored.arrays()
    assert wanted.keys() == found.keys()
    for name, array in wanted.items():
        assert array.dtype == found[name].dtype
        assert array.tobytes() == found[name].tobytes(), name
