"""The shared equations against loops and torch's own functions; a pair that does not count acts as if it were not there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from nocobench.methods import losses
from torch import Tensor

# Rounding of sums of a few dozen doubles.
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def similarities(n: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 3, (n, n)))


def slow_hinge(similarity: Tensor, image_margin: Tensor, text_margin: Tensor, reduce: object) -> Tensor:
    """ncr.md section 2 by loops: image i asks with text j as the negative, text i asks with image j as the negative."""
    n = len(similarity)
    found = []
    for i in range(n):
        others = [j for j in range(n) if j != i]
        image = [max(0.0, float(image_margin[i] + similarity[i, j] - similarity[i, i])) for j in others]
        text = [max(0.0, float(text_margin[i] + similarity[j, i] - similarity[i, i])) for j in others]
        found.append(reduce(image) + reduce(text))  # type: ignore[operator]
    return torch.tensor(found, dtype=torch.float64)


@given(st.integers(2, 9), st.integers(0, 1000))
def test_info_nce_is_the_mean_of_two_cross_entropies(n: int, seed: int) -> None:
    logits, own = similarities(n, seed), torch.arange(n)
    expected = (F.cross_entropy(logits, own, reduction="none") + F.cross_entropy(logits.T, own, reduction="none")) / 2
    torch.testing.assert_close(losses.info_nce(logits), expected, **CLOSE)


@given(st.integers(2, 8), st.integers(0, 1000))
def test_hinges_equal_loops(n: int, seed: int) -> None:
    similarity = similarities(n, seed)
    margins = torch.from_numpy(np.random.default_rng(seed + 1).random((2, n)))
    hardest = losses.hardest_hinge(similarity, margins[0][:, None], margins[1][None, :])
    torch.testing.assert_close(hardest, slow_hinge(similarity, *margins, max), **CLOSE)
    even = torch.full((n,), 0.2, dtype=torch.float64)
    mean = losses.mean_hinge(similarity, 0.2)
    torch.testing.assert_close(mean, slow_hinge(similarity, even, even, sum) / n, **CLOSE)


@given(st.integers(3, 9), st.integers(0, 1000), st.data())
def test_pairs_that_do_not_count_act_as_if_absent(n: int, seed: int, data: st.DataObject) -> None:
    similarity = similarities(n, seed).requires_grad_()
    keep = torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(lambda k: sum(k) >= 2)))
    small = similarity[keep][:, keep]
    for value, expected in (
        (losses.info_nce(similarity, keep), losses.info_nce(small)),
        (losses.hardest_hinge(similarity, 0.2, 0.2, keep), losses.hardest_hinge(small, 0.2, 0.2)),
        (losses.mean_hinge(similarity, 0.2, keep), losses.mean_hinge(small, 0.2)),
    ):
        torch.testing.assert_close(value[keep], expected, **CLOSE)
        assert (value[~keep] == 0).all()
        (gradient,) = torch.autograd.grad(value.sum(), similarity, retain_graph=True)
        assert gradient.isfinite().all()
        assert (gradient[~keep] == 0).all()
        assert (gradient[:, ~keep] == 0).all()


def test_by_hand() -> None:
    """S = [[1, .5], [.9, .2]], margin .2.

    c1_12 = .2 + .5 - 1 < 0 -> 0, c1_21 = .2 + .9 - .2 = .9; text 1 sees .2 + .9 - 1 = .1, text 2 sees .2 + .5 - .2 = .5.
    """
    similarity = torch.tensor([[1.0, 0.5], [0.9, 0.2]], dtype=torch.float64)
    image_asks, text_asks = losses.hinge_matrices(similarity, 0.2, 0.2)
    torch.testing.assert_close(image_asks, torch.tensor([[0, 0], [0.9, 0]], dtype=torch.float64), **CLOSE)
    torch.testing.assert_close(text_asks, torch.tensor([[0, 0.5], [0.1, 0]], dtype=torch.float64), **CLOSE)
    assert losses.hardest_hinge(similarity, 0.2, 0.2).tolist() == pytest.approx([0.1, 1.4])


def test_a_weighted_mean_of_nothing_is_zero() -> None:
    value = losses.weighted_mean(torch.tensor([1.0, 2.0]), torch.zeros(2))
    assert float(value) == 0
    assert float(losses.weighted_mean(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]))) == pytest.approx(2, rel=1e-5)
