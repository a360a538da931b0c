"""Functional optimisers against torch.optim, clipping against torch.nn.utils, schedules by hand."""

from __future__ import annotations

import math

import pytest
import torch
from nocobench.methods import optim
from nocobench.methods.optim import (
    Optimizer,
    Progress,
    Schedule,
    bias_correction,
    clip_by_norm,
    virtual_step,
    warmup_cosine,
)
from torch import Tensor

SHAPES = {"matrix": (4, 3), "bias": (3,), "scale": ()}


def tensors(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}


def torch_optimizer(rule: Optimizer, params: dict[str, Tensor]) -> torch.optim.Optimizer:
    groups = [
        {"params": [value], "weight_decay": rule.decay if rule.decay_on == "all" or value.ndim >= 2 else 0.0}
        for value in params.values()
    ]
    if rule.rule == "sgd":
        return torch.optim.SGD(groups, lr=rule.learning_rate, momentum=rule.momentum)
    cls = torch.optim.AdamW if rule.rule == "adamw" else torch.optim.Adam
    return cls(groups, lr=rule.learning_rate, betas=rule.betas, eps=rule.eps)


@pytest.mark.parametrize("rule", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("decay_on", ["all", "matrices"])
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_equals_torch(rule: str, decay_on: str, clip_norm: float | None) -> None:
    mine = Optimizer(rule, 0.01, (0.9, 0.98), 1e-6, 0.9, 0.2, decay_on, clip_norm)
    params = tensors(0)
    theirs = {name: value.clone().requires_grad_() for name, value in params.items()}
    reference = torch_optimizer(mine, theirs)
    moments = mine.start(params)
    for step in range(5):
        gradients = tensors(step + 1)
        rate = 0.01 * (step + 1)
        for name, value in theirs.items():
            value.grad = gradients[name].clone()
        if clip_norm:
            torch.nn.utils.clip_grad_norm_(theirs.values(), clip_norm)
        for group in reference.param_groups:
            group["lr"] = rate
        reference.step()
        params, moments = mine.step(
            params, gradients, moments, torch.tensor(rate, dtype=torch.float64), torch.tensor(step + 1)
        )
        for name in params:
            torch.testing.assert_close(params[name], theirs[name].detach(), rtol=1e-10, atol=1e-12)


def test_a_stack_of_runs_steps_every_run_as_if_alone() -> None:
    rule = Optimizer(clip_norm=1.0)
    single = [tensors(seed) for seed in (0, 1, 2)]
    gradients = [tensors(seed + 10) for seed in (0, 1, 2)]
    rates, counts = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64), torch.tensor([1, 5, 9])

    def stack(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.stack([part[name] for part in parts]) for name in SHAPES}

    stacked = stack(single)
    together, _ = rule.step(stacked, stack(gradients), rule.start(stacked), rates, counts, run_axes=1)
    for run in range(3):
        alone, _ = rule.step(single[run], gradients[run], rule.start(single[run]), rates[run], counts[run])
        for name in SHAPES:
            torch.testing.assert_close(together[name][run], alone[name], rtol=1e-14, atol=0)


def test_clipping_leaves_small_gradients_alone() -> None:
    gradients = {"a": torch.tensor([0.3, 0.4])}  # norm 0.5
    assert torch.equal(clip_by_norm(gradients, 1.0)["a"], gradients["a"])
    assert clip_by_norm(gradients, 0.25)["a"].norm().item() == pytest.approx(0.25, rel=1e-5)


def test_cosine_with_warmup_by_hand() -> None:
    # 2 warm-up steps: 1/2, 1; then half a cosine over the remaining 4.
    assert [warmup_cosine(step, 2, 6) for step in range(6)] == pytest.approx(
        [0.5, 1.0, 1.0, (1 + math.cos(math.pi / 4)) / 2, 0.5, (1 + math.cos(3 * math.pi / 4)) / 2]
    )


def test_warmup_is_at_most_its_share_of_the_steps() -> None:
    schedule = Schedule("cosine", warmup_steps=500, warmup_share=0.1)
    assert schedule.factor_at(Progress(epoch=0, epochs=10, iteration=0, iterations=10)) == pytest.approx(1 / 10)
    assert schedule.factor_at(Progress(epoch=1, epochs=10, iteration=0, iterations=10)) == 1.0


def test_step_schedule() -> None:
    schedule = Schedule("step", period=30, factor=0.1)
    assert [schedule.factor_at(Progress(epoch, 40, 0, 1)) for epoch in (0, 29, 30)] == pytest.approx([1, 1, 0.1])


def test_virtual_step_is_differentiable() -> None:
    weight = torch.tensor(2.0, requires_grad=True)
    moved = virtual_step({"a": torch.tensor(1.0)}, {"a": 3 * weight}, 0.5)
    assert moved["a"].item() == -2.0
    assert torch.autograd.grad(moved["a"], weight)[0].item() == -1.5


@pytest.mark.parametrize("beta", [0.9, 0.98, 0.999])
def test_bias_correction_has_the_same_bits_in_any_company(beta: float) -> None:
    """Alone, among 20 and among 37 runs; in float32 the plain ``beta**count`` differs at count 31 for 0.9 on some processors."""
    dtype = torch.float32  # runs in float64 are not stacked
    for count in range(1, 400):
        alone = bias_correction(beta, torch.tensor([float(count)], dtype=dtype))
        for runs in (20, 37):
            assert torch.equal(
                bias_correction(beta, torch.full((runs,), float(count), dtype=dtype)), alone.expand(runs)
            )
        # beta itself is rounded to the dtype: 1 - beta^n is off by at most n * 2^-24 (float32), and rounded once more.
        assert float(alone) == pytest.approx(1 - beta**count, abs=(count + 2) * torch.finfo(dtype).eps)


@pytest.mark.parametrize("rule", ["adamw", "adam", "sgd", "rmsprop"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("keep", [None, [True, False, True, True], [False, True, True, False]])
@pytest.mark.parametrize("block", [64, 65_536])
def test_in_place_gives_the_same_bits(
    rule: str,
    decay: float,
    clip_norm: float | None,
    keep: list[bool] | None,
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Several blocks of one tensor, several runs in one block; runs that rest keep their bits."""
    monkeypatch.setattr(optim, "BLOCK", block)
    optimizer = Optimizer(rule, 0.01, (0.9, 0.98), 1e-6, 0.9, decay, "all", clip_norm)
    generator = torch.Generator().manual_seed(3)
    shapes = {"matrix": (16, 32), "bias": (16,), "scale": ()}
    params = {name: torch.randn(4, *shape, generator=generator) for name, shape in shapes.items()}
    here = {name: value.clone() for name, value in params.items()}
    moments, mine = optimizer.start(params), optimizer.start(params)
    moving = torch.tensor([True] * 4 if keep is None else keep)
    for step in range(1, 4):
        gradients = {name: torch.randn(4, *shape, generator=generator) for name, shape in shapes.items()}
        rates, count = torch.tensor([0.1, 0.2, 0.3, 0.4]) / step, torch.full((4,), step)
        params, moments = optimizer.step(params, gradients, moments, rates, count, run_axes=1)
        optimizer.advance(here, gradients, mine, rates, count, None if keep is None else moving)
    for name in shapes:
        assert torch.equal(here[name][moving], params[name][moving])
        for kind, values in moments.items():
            assert torch.equal(mine[kind][name][moving], values[name][moving])
            assert not mine[kind][name][~moving].any()
