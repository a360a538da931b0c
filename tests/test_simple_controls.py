"""The simple controls of robust methods: ``soft_nce``, ``gmm_bank`` and ``fixed_weight``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nocobench.methods.backbones import Towers
from nocobench.methods.contract import (
    Backbone,
    Batch,
    BoundNetwork,
    Budget,
    GradientMethod,
    Spec,
    StepOutput,
    batch_from,
)
from nocobench.methods.gmm_bank import GmmBank
from nocobench.methods.hana import HaNa
from nocobench.methods.msian import FixedWeight
from nocobench.methods.optim import Optimizer
from nocobench.methods.soft_nce import SoftNce, likelihood_weight
from nocobench.protocols.drivers import Tables
from torch import Tensor

N, SIZE, EPOCHS = 24, 8, 8
SPEC = Spec(N, N, 5, 5, False, Backbone("mlp", 7, 4, False, 5.0), Budget(EPOCHS, SIZE, Optimizer()))


def nets_of(method: GradientMethod) -> dict[str, BoundNetwork]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        modules = {name: build().double().eval() for name, build in method.networks().items()}
    return {name: BoundNetwork(module, dict(module.named_parameters())) for name, module in modules.items()}


def table() -> Any:
    generator = torch.Generator().manual_seed(0)
    images, captions = (torch.randn(N, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    return Tables(images, captions, {"image_of_pair": torch.arange(N)[None]}).of_run(0)


def first_batch() -> Batch:
    return batch_from(table(), torch.arange(SIZE), None)


def nce(net: BoundNetwork, batch: Batch) -> tuple[Tensor, Tensor]:
    """Losses by torch's cross entropy, and the geometric mean of the two matching probabilities."""
    logits, target = net.logits(batch.images, batch.texts), torch.arange(len(batch.images))
    losses = (
        F.cross_entropy(logits, target, reduction="none") + F.cross_entropy(logits.mT, target, reduction="none")
    ) / 2
    return losses, (logits.softmax(1).diagonal() * logits.softmax(0).diagonal()).sqrt()


def gradient(loss: Tensor, net: BoundNetwork) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(net.params.values()), retain_graph=True, allow_unused=True))


def total(out: StepOutput) -> Tensor:
    assert isinstance(out.loss, dict)
    return sum(out.loss.values(), start=torch.zeros(()))


# soft_nce


def test_soft_weight_is_the_squared_likelihood() -> None:
    method = SoftNce(SoftNce.Params(), SPEC)
    nets, batch = nets_of(method), first_batch()
    out = method.loss(nets, {"all": batch}, {}, "train")
    losses, probability = nce(nets["net"], batch)
    torch.testing.assert_close(out.weight, probability.detach() ** 2, rtol=1e-10, atol=0)
    weight = probability.detach() ** 2
    expected = (weight * losses).sum() / (weight.sum() + 1e-6)
    torch.testing.assert_close(total(out), expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(
        gradient(total(out), nets["net"]), gradient(expected, nets["net"]), rtol=1e-8, atol=1e-12, msg="w is a constant"
    )


def test_soft_weight_by_hand() -> None:
    """T = 1/2: exp(-2 l); T = 1: exp(-l)."""
    losses = torch.tensor([0.0, 0.5, 1.0, -1e-7], dtype=torch.float64)
    assert likelihood_weight(losses, 0.5).tolist() == pytest.approx([1, np.exp(-1), np.exp(-2), 1])
    assert likelihood_weight(losses, 1.0).tolist() == pytest.approx([1, np.exp(-0.5), np.exp(-1), 1])


def test_soft_nce_survives_hopeless_pairs() -> None:
    """All weights underflow in single precision: loss and gradient are 0, not NaN."""
    losses = torch.full((4,), 200.0, requires_grad=True)
    weight = likelihood_weight(losses, 0.5)
    loss = (weight * losses).sum() / (weight.sum() + 1e-6)
    assert float(loss.detach()) == 0
    assert torch.autograd.grad(loss, losses)[0].tolist() == [0, 0, 0, 0]


def test_soft_nce_warms_up() -> None:
    method = SoftNce(SoftNce.Params(), SPEC)
    assert [method.passes(epoch)[0].updates[0].name for epoch in range(5)] == ["warm up"] * 3 + ["train"] * 2  # type: ignore[union-attr]
    adapter = SoftNce(SoftNce.Params(), replace(SPEC, backbone=Backbone("residual_adapter")))
    assert adapter.warmup == 0
    nets, batch = nets_of(method), first_batch()
    out = method.loss(nets, {"all": batch}, {}, "warm up")
    assert out.weight is None
    torch.testing.assert_close(total(out), nce(nets["net"], batch)[0].mean(), rtol=1e-10, atol=0)


# gmm_bank


def gmm_bank(variant: str = "paper") -> tuple[GmmBank, dict[str, BoundNetwork], dict[str, Any]]:
    method = GmmBank(GmmBank.variants[variant], SPEC)
    nets = nets_of(method)
    return method, nets, dict(method.state(table(), nets, None))  # type: ignore[arg-type]


def two_groups() -> np.ndarray:
    generator = np.random.Generator(np.random.PCG64(0))
    return np.concatenate([generator.normal(1.0, 0.2, N - 8), generator.normal(6.0, 0.5, 8)])


def test_gmm_bank_weighs_with_the_posterior_alone() -> None:
    method, nets, state = gmm_bank()
    state |= {"clean_probability": torch.linspace(0, 1, N, dtype=torch.float64), "anrl_level": torch.tensor(1.0)}
    state |= {"bank_of_image": torch.arange(N).flip(0), "bank_of_text": torch.arange(N).roll(3)}
    batch = batch_from(table(), torch.arange(0, N, 3), None)
    out = method.loss(nets, {"all": batch}, state, "train")
    weight = state["clean_probability"][batch.index]
    assert torch.equal(out.weight, weight)
    positive = (weight * nce(nets["net"], batch)[0]).sum() / (weight.sum() + 1e-6)
    sides = [batch.at(state[f"bank_of_{side}"][batch.index]) for side in ("image", "text")]
    bank = 0.5 * sum(nce(nets["net"], side)[0].mean() for side in sides)
    torch.testing.assert_close(total(out), positive + bank, rtol=1e-10, atol=0)
    assert set(out.loss) == {"positive", "bank"}
    assert not out.state


@pytest.mark.parametrize(("variant", "fires"), [("paper", False), ("guard", True)])
def test_gmm_bank_has_neither_momentum_nor_guard(variant: str, fires: bool) -> None:
    """Mismatched pairs far beyond both sides: HaNa's guard would fire; the control keeps its split, made anew in each epoch."""
    method, nets, state = gmm_bank(variant)
    for epoch, losses in ((3, two_groups()), (4, two_groups()[::-1].copy())):
        signals = {"loss": torch.from_numpy(losses), "mismatched": torch.full((N,), 60.0)}
        with torch.no_grad():
            found = method.partition(nets, table(), signals, state, epoch)
        state |= found.state
        clean = found.clean_probability["net"] >= 0.5
        assert clean.tolist() == [fires or loss < 3 for loss in losses]
    np.testing.assert_array_equal(state["loss_average"], two_groups()[::-1])


def test_gmm_bank_is_hana_switched_off() -> None:
    assert GmmBank.variants["paper"] == HaNa.Params(momentum_beta=0, hardness_delta=0, anrl_lambda=0, guard_ratio=0)
    assert "reconstruction" not in GmmBank.flags


# fixed_weight


def test_fixed_weight_falls_with_the_loss_and_never_learns() -> None:
    method = FixedWeight(FixedWeight.variants["paper"], SPEC)
    nets, batch = nets_of(method), first_batch()
    assert method.needs_now() == frozenset()
    for epoch in range(EPOCHS):
        for this in method.passes(epoch):
            assert set(this.draws) == {"all"}  # type: ignore[union-attr]
            assert [update.train for update in this.updates] == [("net",)]  # type: ignore[union-attr]
    state = method.state(table(), nets, None)  # type: ignore[arg-type]
    out = method.loss(nets, {"all": batch}, state, "train")
    losses, _ = nce(nets["net"], batch)
    order = losses.detach().argsort()
    assert out.weight is not None
    assert bool((out.weight[order].diff() < 0).all())
    weight = nets["weight"].weigh(losses.detach()[:, None]).detach()
    expected = (weight * losses).sum() / (weight.sum() + 1e-6)
    torch.testing.assert_close(total(out), expected, rtol=1e-10, atol=0)
    assert all(part is None for part in gradient(total(out), nets["weight"]))
    assert isinstance(nets["net"].module, Towers)
