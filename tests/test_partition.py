"""Two-component mixtures: exact start, scikit-learn's updates, degenerate input."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nocobench.methods.partition import gaussian_mixture_1d, min_max, ncr_clean_mask, two_means_split
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

finite = st.floats(-100, 100, allow_nan=False).map(lambda value: round(value, 3))
vectors = st.lists(finite, min_size=2, max_size=30).filter(lambda values: len(set(values)) > 1)


def two_groups(n: int = 400, seed: int = 0, gap: float = 2.0) -> Tensor:
    generator = np.random.Generator(np.random.PCG64(seed))
    low = generator.normal(0.0, 0.4, n - n // 3)
    high = generator.normal(gap, 0.7, n // 3)
    return torch.from_numpy(generator.permutation(np.concatenate([low, high])))


def sklearn_mixture(x: np.ndarray, low: np.ndarray, max_iter: int, tol: float, reg_covar: float) -> GaussianMixture:
    """scikit-learn's mixture started from given labels: its first M-step done by hand."""
    parts = [x[low], x[~low]]
    model = GaussianMixture(
        2,
        max_iter=max_iter,
        tol=tol,
        reg_covar=reg_covar,
        weights_init=[len(part) / len(x) for part in parts],
        means_init=[[part.mean()] for part in parts],
        precisions_init=[[[1 / (part.var() + reg_covar)]] for part in parts],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x[:, None])


@pytest.mark.parametrize(
    ("max_iter", "tol", "reg_covar"), [(10, 1e-2, 5e-4), (100, 1e-2, 5e-4), (100, 1e-6, 1e-6), (3, 0.0, 1e-6)]
)
@pytest.mark.parametrize("gap", [0.3, 2.0, 8.0])
def test_equals_scikit_learn_from_the_same_start(max_iter: int, tol: float, reg_covar: float, gap: float) -> None:
    x = two_groups(gap=gap)
    ours = gaussian_mixture_1d(x, max_iter, tol, reg_covar)
    theirs = sklearn_mixture(x.numpy(), two_means_split(x).numpy(), max_iter, tol, reg_covar)
    order = theirs.means_[:, 0].argsort()
    assert (ours.n_iter, ours.converged) == (theirs.n_iter_, theirs.converged_)
    # Same arithmetic in another order of summation, carried through up to 100 iterations.
    close = {"rtol": 1e-8, "atol": 0}
    np.testing.assert_allclose(ours.means, theirs.means_[order, 0], rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(ours.variances, theirs.covariances_[order, 0, 0], **close)
    np.testing.assert_allclose(ours.weights, theirs.weights_[order], **close)
    np.testing.assert_allclose(
        ours.posterior_low, theirs.predict_proba(x.numpy()[:, None])[:, order[0]], rtol=1e-7, atol=1e-12
    )


def test_start_labels_may_come_in_either_naming() -> None:
    x = two_groups()
    start = x < x.quantile(0.3)
    one, other = (gaussian_mixture_1d(x, 10, 1e-2, 5e-4, start=labels) for labels in (start, ~start))
    torch.testing.assert_close(one.posterior_low, other.posterior_low, rtol=1e-12, atol=0)
    theirs = sklearn_mixture(x.numpy(), start.numpy(), 10, 1e-2, 5e-4)
    np.testing.assert_allclose(one.means, np.sort(theirs.means_[:, 0]), rtol=1e-10)


@given(vectors)
@settings(deadline=None)
def test_the_start_is_the_best_cut(values: list[float]) -> None:
    """Against trying every cut of the sorted values: no cut has a smaller within-group sum of squares."""
    x = torch.tensor(values, dtype=torch.float64)
    low = two_means_split(x)

    def spread(parts: list[np.ndarray]) -> float:
        return sum(float(((part - part.mean()) ** 2).sum()) for part in parts)

    ordered = np.sort(x.numpy())
    best = min(spread([ordered[:cut], ordered[cut:]]) for cut in range(1, len(ordered)))
    ours = spread([x[low].numpy(), x[~low].numpy()])
    assert float(x[low].max()) < float(x[~low].min())
    assert ours <= best * (1 + 1e-9) + 1e-9


def test_start_by_hand() -> None:
    """0 1 | 10 11 12: within 0.5 + 2 = 2.5; the cut behind 10 costs 60.7 + 0.5, the one behind 0 far more."""
    assert two_means_split(torch.tensor([11.0, 0.0, 12.0, 1.0, 10.0])).tolist() == [False, True, False, True, False]


def test_separates_two_groups() -> None:
    """Two spikes of 3 and 1 values: weights 3/4 and 1/4, means 0 and 1, variances the regularisation alone."""
    mixture = gaussian_mixture_1d(torch.tensor([0.0, 1.0, 0.0, 0.0]), 10, 1e-2, 1e-4)
    torch.testing.assert_close(mixture.weights, torch.tensor([0.75, 0.25], dtype=torch.float64), rtol=1e-9, atol=0)
    torch.testing.assert_close(mixture.means, torch.tensor([0.0, 1.0], dtype=torch.float64), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(mixture.variances, torch.full((2,), 1e-4, dtype=torch.float64), rtol=1e-6, atol=0)
    assert mixture.posterior_low.round().tolist() == [1, 0, 1, 1]
    assert mixture.converged


@given(vectors, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_order_of_the_values_does_not_matter(values: list[float], random: object) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    order = torch.tensor(random.sample(range(len(values)), len(values)))  # type: ignore[attr-defined]
    one, other = gaussian_mixture_1d(x, 10, 1e-2, 1e-3), gaussian_mixture_1d(x[order], 10, 1e-2, 1e-3)
    assert bool(((one.posterior_low >= 0) & (one.posterior_low <= 1)).all())
    assert float(one.means[0]) <= float(one.means[1])
    if one.n_iter == other.n_iter:  # a change within rounding of tol may stop one of them earlier
        torch.testing.assert_close(one.posterior_low[order], other.posterior_low, rtol=1e-6, atol=1e-6)


def test_same_bits_twice_and_single_precision_is_lifted() -> None:
    x = two_groups().float()
    one, other = gaussian_mixture_1d(x, 10, 1e-2, 5e-4), gaussian_mixture_1d(x.double(), 10, 1e-2, 5e-4)
    assert one.posterior_low.dtype == torch.float64
    assert torch.equal(one.posterior_low, other.posterior_low)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], "at least two"),
        ([2.0, 2.0, 2.0], "all 3 values equal 2"),
        ([0.0, float("nan")], "1 of 2"),
        ([0.0, float("inf")], "not finite"),
    ],
)
def test_degenerate_values_are_refused(values: list[float], message: str) -> None:
    for function in (min_max, lambda x: gaussian_mixture_1d(x, 10, 1e-2, 5e-4)):
        with pytest.raises(ValueError, match=message):
            function(torch.tensor(values))


def test_min_max_by_hand() -> None:
    assert min_max(torch.tensor([3.0, 1.0, 5.0])).tolist() == [0.5, 0.0, 1.0]


def test_clean_mask_is_strict() -> None:
    assert ncr_clean_mask(torch.tensor([0.5, 0.6, 0.1])).tolist() == [False, True, False]


@pytest.mark.parametrize(("n", "noisy"), [(5, 1), (99, 1), (100, 2), (250, 3)])
def test_clean_mask_keeps_some_pairs_out(n: int, noisy: int) -> None:
    """All above the threshold: the (n // 100)-th smallest (0-based) and those below it count as noisy."""
    posterior = 0.9 + torch.arange(n).flip(0) / (20 * n)
    mask = ncr_clean_mask(posterior)
    assert (~mask).nonzero().squeeze(1).tolist() == list(range(n - noisy, n))


def test_clean_mask_refuses_nan() -> None:
    with pytest.raises(ValueError, match="1 of 2 clean posteriors are NaN"):
        ncr_clean_mask(torch.tensor([0.4, float("nan")]))
