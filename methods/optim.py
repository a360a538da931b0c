"""Optimisers on dictionaries of tensors, so that one step serves one run or a stack of runs; nothing is coupled between runs.

:meth:`Optimizer.step` is a function, for look-ahead methods; :meth:`Optimizer.advance` does the same to the same bits in place, block by
block, so that a step reads and writes the weights once. Parity with ``torch.optim`` is tested. :func:`virtual_step` is the
differentiable step of meta-learning methods.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

Tensors = dict[str, Tensor]

# Numbers of a weight matrix that are stepped at once on a CPU: with gradient and moments they stay in its cache. A multiple of 16.
BLOCK, EVERYTHING = 65_536, 1 << 62


@dataclass(frozen=True)
class Progress:
    """Where a run stands: ``iteration`` of ``iterations`` in this pass of ``epoch`` of ``epochs``, over ``n_samples`` pairs."""

    epoch: int
    epochs: int
    iteration: int
    iterations: int
    n_samples: int = 0

    @property
    def step(self) -> int:
        return self.epoch * self.iterations + self.iteration

    @property
    def total(self) -> int:
        return self.epochs * self.iterations


@dataclass(frozen=True)
class Schedule:
    """How the learning rate moves.

    Attributes:
        kind: ``constant``; ``cosine`` (linear warm-up, then cosine to 0, in iterations; specs/clip.md section 5);
            ``cosine-in-samples`` (the same function, called with sample counts as NPC and CLIP released it; npc.md 7.8);
            ``step`` (times ``factor`` every ``period`` epochs; ncr.md section 4); ``cosine-in-epochs`` (cosine to 0, one value per epoch).
        warmup_steps: upper bound of the warm-up, in steps.
        warmup_share: the warm-up is at most this share of all iterations.
        lag: epochs by which ``step`` and ``cosine-in-epochs`` come late: released loops that step their scheduler with the number of the
            epoch just finished use the value of epoch ``e - 1`` in epoch ``e`` (mrl.md section 4, ucch.md section 4).
    """

    kind: Literal["constant", "cosine", "cosine-in-samples", "step", "cosine-in-epochs"] = "cosine"
    warmup_steps: int = 500
    warmup_share: float = 0.1
    period: int = 30
    factor: float = 0.1
    lag: int = 0

    def factor_at(self, progress: Progress) -> float:
        """What the base rate is multiplied with."""
        if self.kind == "constant":
            return 1.0
        epoch = max(0, progress.epoch - self.lag)
        if self.kind == "step":
            return self.factor ** (epoch // self.period)
        if self.kind == "cosine-in-epochs":
            return warmup_cosine(epoch, 0, progress.epochs)
        if self.kind == "cosine-in-samples":
            step = progress.n_samples * progress.epoch + progress.iteration
            return warmup_cosine(step, self.warmup_steps, progress.n_samples * progress.epochs)
        warmup = min(self.warmup_steps, int(self.warmup_share * progress.total))
        return warmup_cosine(progress.step, warmup, progress.total)


def warmup_cosine(step: int, warmup: int, total: int) -> float:
    """Linear warm-up ``(step+1)/warmup``, then ``(1 + cos(pi (step-warmup)/(total-warmup)))/2`` (npc.md section 4)."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


@dataclass(frozen=True)
class Optimizer:
    """How one network is stepped.

    Attributes:
        rule: ``adamw`` (decoupled decay), ``adam`` (decay added to the gradient, as torch), ``sgd`` (momentum, coupled decay),
            ``rmsprop`` (coupled decay, no momentum; ``betas[1]`` is its smoothing constant).
        learning_rate: base rate.
        decay: weight decay; ``decay_on`` says on which tensors (``matrices``: two or more axes; ``all``).
        clip_norm: largest global norm of the gradient over the network's parameters, None = no clipping.
    """

    rule: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    momentum: float = 0.9
    decay: float = 0.2
    decay_on: Literal["matrices", "all"] = "matrices"
    clip_norm: float | None = None
    schedule: Schedule = field(default_factory=Schedule)

    def start(self, params: Mapping[str, Tensor]) -> dict[str, Tensors]:
        """Moments of a fresh optimiser, shaped like ``params``."""
        adam = ("first", "second")
        names = {"adamw": adam, "adam": adam, "sgd": ("momentum",), "rmsprop": ("second",)}[self.rule]
        return {name: {key: torch.zeros_like(value) for key, value in params.items()} for name in names}

    def step(
        self,
        params: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        moments: Mapping[str, Tensors],
        learning_rate: Tensor,
        count: Tensor,
        run_axes: int = 0,
    ) -> tuple[Tensors, dict[str, Tensors]]:
        """One step; returns new parameters and moments, inputs stay as they are.

        Args:
            params, gradients: by name, each ``[*runs, ...]``.
            moments: from :meth:`start` or an earlier step.
            learning_rate: ``[*runs]``, base rate times schedule.
            count: ``[*runs]`` integer or float, 1 for the first step.
            run_axes: 0 for one run, 1 for a stack of runs.
        """
        gradients = clip_by_norm(gradients, self.clip_norm, run_axes)
        new_params: Tensors = {}
        new_moments: dict[str, Tensors] = {name: {} for name in moments}
        for key, value in params.items():
            decay = self.decay if self.decay_on == "all" or value.ndim - run_axes >= 2 else 0.0
            rate, steps = (_expand(x, value, run_axes) for x in (learning_rate, count))
            old = {name: moments[name][key] for name in moments}
            new_params[key], new = self._rule(value, gradients[key], old, rate, steps, decay)
            for name, tensor in new.items():
                new_moments[name][key] = tensor
        return new_params, new_moments

    def advance(
        self,
        params: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        moments: Mapping[str, Tensors],
        learning_rate: Tensor,
        count: Tensor,
        keep: Tensor | None = None,
    ) -> None:
        """:meth:`step` of a stack of runs, in place: ``params`` and ``moments`` change, ``gradients`` do not.

        Args:
            params, gradients, moments: ``[runs, ...]``; params and moments contiguous.
            learning_rate, count: ``[runs]``.
            keep: ``[runs]``, False for runs that stay as they are; None = all move.
        """
        gradients = clip_by_norm(gradients, self.clip_norm, run_axes=1)
        stretches = _stretches(len(count), keep)
        rate, steps = learning_rate[:, None], count.to(learning_rate.dtype)[:, None]
        size, scale = rate, torch.ones_like(rate)
        if "first" in moments:
            size, scale = rate / bias_correction(self.betas[0], steps), bias_correction(self.betas[1], steps).sqrt()
        for key, value in params.items():
            decay = self.decay if self.decay_on == "all" or value.ndim >= 3 else 0.0
            flat, gradient = (tensor.reshape(len(value), -1) for tensor in (value, gradients[key]))
            old = {name: moment[key].view(len(value), -1) for name, moment in moments.items()}
            for place in _blocks(flat.shape[1], stretches, EVERYTHING if value.is_cuda else BLOCK):
                here = {name: moment[place] for name, moment in old.items()}
                runs = place[0]
                self._rule_in_place(flat[place], gradient[place], here, rate[runs], size[runs], scale[runs], decay)

    def _rule_in_place(
        self, value: Tensor, gradient: Tensor, moments: Tensors, rate: Tensor, size: Tensor, scale: Tensor, decay: float
    ) -> None:
        """The operations of :meth:`_rule` in the same order, so that they round in the same way.

        ``size`` is the rate over the bias correction of the first moment, ``scale`` the root of that of the second.
        """
        if self.rule == "adamw":
            if decay:
                value.mul_(1 - rate * decay)
        elif decay:
            gradient = torch.add(gradient, decay * value)
        if self.rule == "sgd":
            moments["momentum"].mul_(self.momentum).add_(gradient)
            value.sub_(rate * moments["momentum"])
            return
        beta1, beta2 = self.betas
        root = moments["second"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2).sqrt()
        if self.rule == "rmsprop":
            value.sub_((rate * gradient).div_(root.add_(self.eps)))
            return
        moments["first"].lerp_(gradient, 1 - beta1)
        value.addcdiv_(size * moments["first"], root.div_(scale).add_(self.eps), value=-1)

    def _rule(
        self, value: Tensor, gradient: Tensor, moments: Tensors, rate: Tensor, count: Tensor, decay: float
    ) -> tuple[Tensor, Tensors]:
        if self.rule == "sgd":
            gradient = gradient + decay * value if decay else gradient
            velocity = self.momentum * moments["momentum"] + gradient
            return value - rate * velocity, {"momentum": velocity}
        if self.rule == "adamw":
            value = value * (1 - rate * decay) if decay else value
        elif decay:
            gradient = gradient + decay * value
        beta1, beta2 = self.betas
        if self.rule == "rmsprop":
            second = torch.addcmul(moments["second"] * beta2, gradient, gradient, value=1 - beta2)
            return value - rate * gradient / (second.sqrt() + self.eps), {"second": second}
        first = torch.lerp(moments["first"], gradient, 1 - beta1)
        second = torch.addcmul(moments["second"] * beta2, gradient, gradient, value=1 - beta2)
        size = rate / bias_correction(beta1, count)
        root = (second.sqrt() / bias_correction(beta2, count).sqrt()).add(self.eps)
        return value - size * first / root, {"first": first, "second": second}


def _stretches(n_runs: int, keep: Tensor | None) -> list[tuple[int, int]]:
    """First and last-plus-one of each stretch of neighbouring runs that move."""
    moving = [True] * n_runs if keep is None else keep.tolist()
    edges = [run for run in range(n_runs + 1) if (run > 0 and moving[run - 1]) != (run < n_runs and moving[run])]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _blocks(n: int, stretches: Sequence[tuple[int, int]], size: int) -> Iterator[tuple[slice, slice]]:
    """Cut ``[runs, n]`` into pieces of about ``size`` numbers: several runs of a small tensor, a part of one run of a large one."""
    at_once = max(1, size // max(1, n))
    for first, end in stretches:
        for run in range(first, end, at_once):
            for column in range(0, max(1, n), size):
                yield slice(run, min(run + at_once, end)), slice(column, column + size)


def bias_correction(beta: float, count: Tensor) -> Tensor:
    """``1 - beta^count``, same shape and dtype as ``count``.

    The power is taken in float64: in float32 a kernel rounds it differently when it takes several numbers at once, so that a run's bits
    would depend on how many runs there are.
    """
    rounded = float(torch.tensor(beta, dtype=count.dtype))
    return 1 - (rounded ** count.double()).to(count.dtype)


def _expand(scalar: Tensor, like: Tensor, run_axes: int) -> Tensor:
    return scalar.reshape(scalar.shape + (1,) * (like.ndim - run_axes)).to(like.dtype)


def clip_by_norm(gradients: Mapping[str, Tensor], limit: float | None, run_axes: int = 0) -> Tensors:
    """Scale a run's gradients so that their joint 2-norm is at most ``limit`` (as ``clip_grad_norm_``, but per run)."""
    if limit is None:
        return dict(gradients)
    squares = [(g * g).reshape(*g.shape[:run_axes], -1).sum(-1) for g in gradients.values()]
    # Added one by one: a sum over a stack [tensors, runs] would round by a run's place among its neighbours.
    norm = sum(squares[1:], start=squares[0]).sqrt()
    scale = (limit / (norm + 1e-6)).clamp(max=1.0)
    return {key: g * _expand(scale, g, run_axes) for key, g in gradients.items()}


def virtual_step(params: Mapping[str, Tensor], gradients: Mapping[str, Tensor], rate: Tensor | float) -> Tensors:
    """Plain gradient descent ``params - rate * gradients``, differentiable in everything."""
    return {key: value - rate * gradients[key] for key, value in params.items()}
