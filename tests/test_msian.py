"""Meta-reweighting beyond its oracles: inputs of the weight net, the virtual step, the polarity watch, the control without learning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from nocobench.datasets.types import TrainView
from nocobench.methods import msian
from nocobench.methods.contract import Backbone, Batch, BoundNetwork, Budget, Spec
from nocobench.methods.optim import Optimizer
from torch import Tensor

SPEC = Spec(
    8, 8, 4, 3, False, Backbone(kind="mlp", hidden=5, dim=3, normalise_inputs=False), Budget(6, 4, Optimizer()), 4,
    frozenset({"clean-meta-set"}),
)  # fmt: skip


def method(variant: str = "paper", **changes: object) -> msian.Msian:
    return msian.Msian(replace(msian.Msian.variants[variant], **changes), SPEC)  # type: ignore[arg-type]


def bound(build: object, seed: int) -> BoundNetwork:
    torch.manual_seed(seed)
    module = build().double()  # type: ignore[operator]
    return BoundNetwork(module, {key: value.detach() for key, value in module.named_parameters()})


def batch(seed: int, n: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images, texts = (torch.randn(n, dim, generator=generator, dtype=torch.float64) for dim in (4, 3))
    return Batch(torch.arange(n), images, texts, torch.arange(n))


def test_similarity_features_by_hand() -> None:
    """Pair 1: own .9, hardest text .4, hardest image .7 -> 4 (.9, .5, .2)."""
    similarity = torch.tensor([[0.9, 0.4, 0.1], [0.7, 0.2, 0.6], [0.0, 0.3, -0.5]])
    features = msian.similarity_features(similarity)
    assert features[0].tolist() == pytest.approx([3.6, 2.0, 0.8])
    assert features[2].tolist() == pytest.approx([-2.0, 4 * (-0.5 - 0.3), 4 * (-0.5 - 0.6)])


def test_the_virtual_step_is_a_gradient_step_and_knows_the_weight_net() -> None:
    """Meta gradient by torch.func against finite differences of the whole chain (4.3, 4.5)."""
    this = method("mwn", virtual_rate=0.3)
    nets = {name: bound(build, seed) for seed, (name, build) in enumerate(this.networks().items())}
    pairs, meta = batch(1), batch(2)

    def chain(weight_params: dict[str, Tensor]) -> Tensor:
        return this.meta_loss(nets | {"weight": nets["weight"].at(weight_params)}, pairs, meta)["verified"]

    gradient = torch.func.grad(chain)(dict(nets["weight"].params))
    key, step = "linear2.bias", 1e-5
    ends = []
    for sign in (1, -1):
        moved = dict(nets["weight"].params)
        moved[key] = moved[key] + sign * step
        ends.append(float(chain(moved)))
    assert float(gradient[key]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)
    assert float(gradient[key]) != 0


def test_a_monotone_net_starts_with_a_weight_that_falls_with_the_loss() -> None:
    torch.manual_seed(0)
    net = msian.WeightNet(1, 100, monotone=True)
    weight = net.weigh(torch.linspace(0, 10, 50)[:, None])
    assert (weight.diff() <= 0).all()
    assert weight[0] > weight[-1]


@given(
    st.lists(
        st.tuples(st.floats(-5, 5), st.floats(-5, 5)),
        min_size=3,
        max_size=30,
        unique_by=(lambda p: p[0], lambda p: p[1]),
    )
)
def test_rank_correlation_equals_scipy(points: list[tuple[float, float]]) -> None:
    x, y = (torch.tensor(column, dtype=torch.float64) for column in zip(*points, strict=True))
    assert msian.rank_correlation(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-9)


@pytest.mark.parametrize(
    ("weights", "restarted", "acts"),
    [
        ([0.9, 0.7, 0.2], 0.0, False),  # falls with the loss: fine
        ([0.2, 0.5, 0.9], 0.0, True),  # rises with the loss
        ([0.99, 0.985, 0.98], 0.0, True),  # falls, but everything sits near 1
        ([0.2, 0.5, 0.9], 1.0, False),  # only once
    ],
)
def test_the_polarity_watch(weights: list[float], restarted: float, acts: bool) -> None:
    state = {
        "weight": torch.tensor([*weights, torch.nan]), "loss": torch.tensor([1.0, 2.0, 3.0, torch.nan]),
        "restarted": torch.tensor(restarted),
    }  # fmt: skip
    view = TrainView(torch.zeros(8, 4), torch.zeros(8, 3), torch.arange(8))
    found = method().partition({}, view, {}, state, 4)
    assert found.reinitialise == (("weight",) if acts else ())
    assert ("weight_net_restarted_in_epoch" in found.facts) is acts
    assert found.facts["weight_mean"] == pytest.approx(np.mean(weights))


def test_the_control_never_learns_its_weights_and_needs_no_clean_pairs() -> None:
    control = msian.FixedWeight(msian.FixedWeight.variants["paper"], SPEC)
    assert control.needs_now() == frozenset()
    updates = [update.name for epoch in range(6) for this in control.passes(epoch) for update in this.updates]  # type: ignore[union-attr]
    assert set(updates) == {"warm up", "train"}
    assert {update.name for this in method().passes(5) for update in this.updates} == {"learn weights", "train"}  # type: ignore[union-attr]
