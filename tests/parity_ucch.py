"""Parity with the official code of UCCH: ranking loss, contrastive loss with memory, and training steps."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from nocobench.methods.contract import Update
from nocobench.methods.optim import clip_by_norm
from nocobench.methods.ucch import Ucch, batch_logits, memory_logits, ranking_loss, remembered
from official_networks import FullBatch, OfficialTowers, check_heads, constant, gradient_of, label_spec, tensor
from parity import Oracle, consumes
from torch import Tensor


@consumes("ucch__ranking_loss")
def ranking(oracle: Oracle) -> None:
    h1, h2 = (tensor(oracle[f"in_h{k}"]).requires_grad_() for k in (1, 2))
    for at, (margin, shift, kappa) in enumerate(oracle["in_margin_shift_tau"]):
        loss = ranking_loss(h1, h2, float(margin), float(shift), float(kappa))
        oracle.check("out_loss", loss, at=at)
        for name, gradient in zip(("h1", "h2"), gradient_of(loss, h1, h2), strict=True):
            oracle.check(f"out_grad_{name}", gradient, at=at)


@consumes("ucch__contrastive_memory")
def contrastive_memory(oracle: Oracle) -> None:
    h1, h2 = (tensor(oracle[f"in_h{k}"]).requires_grad_() for k in (1, 2))
    memory, index, keys = (torch.from_numpy(oracle[f"in_{k}"].copy()) for k in ("memory", "y", "idx"))
    scale = float(oracle.constants["T"]) * math.sqrt(memory.shape[1])
    momentum = float(oracle.constants["momentum"])
    half = {"rtol": 1e-7, "atol": 1e-7}  # official temperature and momentum are float32
    found = {
        "warm": ([batch_logits(h, h1, h2, scale) for h in (h1, h2)], 0.0),
        "main": ([memory_logits(h, memory, keys, scale) for h in (h1, h2)], momentum),
    }
    for phase, (logits, delta) in found.items():
        for side, values in zip(("img", "txt"), logits, strict=True):
            if phase == "warm":  # the order of the other keys is free
                values = torch.cat([values[:, :1], values[:, 1:].sort(1).values], 1)
                oracle.check_equivalent(f"out_warm_logits_{side}", lambda theirs, v=values: same_rows(theirs, v))
            else:
                oracle.check(f"out_main_logits_{side}", values, **half)
        losses = [-values.log_softmax(1)[:, 0].mean() for values in logits]
        oracle.check(f"out_{phase}_loss", torch.stack(losses), **half)
        for name, gradient in zip(("h1", "h2"), gradient_of(sum(losses), h1, h2), strict=True):
            oracle.check(f"out_{phase}_grad_{name}", gradient, **half)
        oracle.check(f"out_{phase}_memory", remembered(h1, h2, memory, index, delta), **half)


def same_rows(theirs: object, ours: Tensor) -> bool:
    stored = torch.as_tensor(theirs)
    stored = torch.cat([stored[:, :1], stored[:, 1:].sort(1).values], 1)
    return bool(torch.allclose(stored, ours, rtol=1e-7, atol=1e-7))


@consumes("ucch__train_step")
def train_step(oracle: Oracle) -> None:
    images, texts, memory = (tensor(oracle[f"in_{k}"]) for k in ("x_img", "x_txt", "memory"))
    rows, keys = (torch.from_numpy(oracle[f"in_{k}"].copy()) for k in ("y", "idx"))
    constants = oracle.constants
    params = replace(
        Ucch.Params(),
        beta=constants["alpha"],
        margin=constants["margin"],
        shift=constants["shift"],
        temperature=constants["T"],
        momentum=constants["momentum"],
    )
    this = Ucch(params, label_spec(len(memory), 2, memory.shape[1]))
    this.drawn_keys = lambda items, state: keys  # type: ignore[method-assign]
    # The batch's places in the training set.
    this._remembered = lambda h1, h2, items, bank, delta: remembered(h1, h2, bank, rows, delta)  # type: ignore[method-assign]
    optimizer = constant("adam", constants["lr"], decay=constants["weight_decay"], clip=1.0)
    zero = torch.zeros((), dtype=torch.int64)
    run = FullBatch(
        this, optimizer, {"net": OfficialTowers(oracle)}, images, texts, torch.zeros(len(images), 2),
        state={"memory": memory, "key": zero, "step": zero},
    )  # fmt: skip
    for at in range(len(oracle.arrays["out_grad_norm"])):
        update = Update("warm-up" if at == 0 else "train")
        gradients = run.gradients(update)["net"]
        norm = torch.sqrt(sum((g * g).sum() for g in gradients.values()))
        assert sum((g * g).sum() for g in clip_by_norm(gradients, 1.0).values()) <= 1 + 1e-6
        log = run.step(update)
        contrastive, ranked = (log.losses[k][0] for k in ("contrastive", "ranking"))
        total = contrastive + ranked
        parts = [contrastive / params.beta, ranked / (1 - params.beta), total]
        oracle.check("out_losses", torch.stack(parts), at=at)
        oracle.check("out_grad_norm", norm, at=at)
    oracle.check("out_memory", run.driver.state["memory"][0])
    check_heads(oracle, "out_after3_{}", run.params("net"), {"img": "image_head", "txt": "text_head"})
