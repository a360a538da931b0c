"""Parity with the official code of UCCH: ranking loss, contrastive loss with memory, and training steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from nocobench.methods.contract import Batch, Update
from nocobench.methods.ucch import Ucch, batch_logits, first_cross_entropy, memory_logits, ranking_loss, remembered
from official_networks import FullBatch, OfficialTowers, check_heads, constant, gradient_of, label_spec, tensor
from parity import Oracle, consumes
from torch import Tensor


@consumes("ucch__ranking_loss")
def ranking(oracle: Oracle) -> None:
    h1, h2 = (tensor(oracle[f"in_h{k}"]).requires_grad_() for k in (1, 2))
    for at, (margin, shift, kappa) in enumerate(oracle["in_margin_shift_tau"]):
        loss = ranking_loss(h1, h2, float(margin), float(shift), float(kappa)).mean()
        oracle.check("out_loss", loss, at=at)
        for name, gradient in zip(("h1", "h2"), gradient_of(loss, h1, h2), strict=True):
            oracle.check(f"out_grad_{name}", gradient, at=at)


@consumes("ucch__contrastive_memory")
def contrastive_memory(oracle: Oracle) -> None:
    h1, h2 = (tensor(oracle[f"in_h{k}"]).requires_grad_() for k in (1, 2))
    memory, index, keys = (tensor(oracle[f"in_{k}"]) for k in ("memory", "y", "idx"))
    scale = float(oracle.constants["T"]) * math.sqrt(memory.shape[1])
    # The official code keeps temperature and momentum in float32.
    half = {"rtol": 1e-7, "atol": 1e-7}
    found = {
        "warm": ([batch_logits(h, h1, h2, scale) for h in (h1, h2)], 0.0),
        "main": ([memory_logits(h, memory, keys, scale) for h in (h1, h2)], float(oracle.constants["momentum"])),
    }
    for phase, (logits, momentum) in found.items():
        for side, values in zip(("img", "txt"), logits, strict=True):
            oracle.check(f"out_{phase}_logits_{side}", values, **half)
        losses = torch.stack([first_cross_entropy(values).mean() for values in logits])
        oracle.check(f"out_{phase}_loss", losses, **half)
        for name, gradient in zip(("h1", "h2"), gradient_of(losses.sum(), h1, h2), strict=True):
            oracle.check(f"out_{phase}_grad_{name}", gradient, **half)
        oracle.check(f"out_{phase}_memory", remembered(h1, h2, memory, index, momentum), **half)


class GivenKeys(Ucch):
    """UCCH with the keys of the oracle file in place of its own draws."""

    keys: Tensor

    def drawn_keys(self, items: Batch, state: Mapping[str, Any]) -> Tensor:
        return self.keys


@consumes("ucch__train_step")
def train_step(oracle: Oracle) -> None:
    images, texts, memory = (tensor(oracle[f"in_{k}"]) for k in ("x_img", "x_txt", "memory"))
    rows, keys = tensor(oracle["in_y"]), tensor(oracle["in_idx"])
    # The engine numbers the batch's items from 0; items are renamed so that these are the first rows of the memory.
    others = torch.ones(len(memory), dtype=torch.bool).index_fill(0, rows, False).nonzero()[:, 0]
    order = torch.cat([rows, others])
    constants = oracle.constants
    params = replace(
        Ucch.Params(),
        beta=float(constants["alpha"]),
        margin=float(constants["margin"]),
        shift=float(constants["shift"]),
        temperature=float(constants["T"]),
        momentum=float(constants["momentum"]),
    )
    this = GivenKeys(params, label_spec(len(memory), 1, memory.shape[1]))
    this.keys = order.argsort()[keys]
    zero = torch.zeros((), dtype=torch.int64)
    run = FullBatch(
        this,
        constant("adam", float(constants["lr"]), decay=float(constants["weight_decay"]), clip=1.0),
        {"net": OfficialTowers(oracle)},
        images,
        texts,
        torch.zeros(len(images), 1),
        state={"memory": memory[order], "key": zero, "step": zero},
    )
    for at in range(len(oracle.arrays["out_grad_norm"])):
        update = Update("warm-up" if at == 0 else "train")
        gradients = run.gradients(update)["net"]
        oracle.check("out_grad_norm", torch.sqrt(sum((g * g).sum() for g in gradients.values())), at=at)
        parts = run.step(update).losses
        contrastive, ranked = (parts[name][0] for name in ("contrastive", "ranking"))
        unweighted = [contrastive / params.beta, ranked / (1 - params.beta)]
        oracle.check("out_losses", torch.stack([*unweighted, contrastive + ranked]), at=at)
    oracle.check("out_memory", run.driver.state["memory"][0][order.argsort()])
    check_heads(oracle, "out_after3_{}", run.params("net"), {"img": "image_head", "txt": "text_head"})
