"""Parity with the official code of RSHNL: centres, losses, weights and whole trainings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from nocobench.methods.contract import Batch, Pass, Update
from nocobench.methods.label_losses import contrastive_hashing, log_label_probability, robust_shape
from nocobench.methods.network import Network
from nocobench.methods.rshnl import Centers, Rshnl
from official_networks import (
    FullBatch,
    OfficialTowers,
    check_heads,
    constant,
    gradient_of,
    head,
    label_spec,
    one_hot,
    tensor,
)
from parity import Oracle, consumes
from torch import Tensor

HEADS = {"img": "image_head", "txt": "text_head"}


class OfficialCenters(Centers):
    def __init__(self, oracle: Oracle, prefix: str) -> None:
        Network.__init__(self)
        self.head = head(oracle, prefix)
        self.n_classes = self.head[0].weight.shape[1]


def method(spec: Any, **params: Any) -> Rshnl:
    return Rshnl(replace(Rshnl.Params(), **params), spec)


@consumes("rshnl__centers")
def centers(oracle: Oracle) -> None:
    small = OfficialCenters(oracle, "small")
    found = small.centers()
    oracle.check("out_small_W", found)
    (found * tensor(oracle["in_upstream"])).sum().backward()
    gradients = {f"head.{name}": value.grad for name, value in small.head.named_parameters()}
    check_heads(oracle, "out_grad_{}", gradients, {"small": "head"})
    n_classes, bits = oracle.arrays["out_seeded_W"].shape[1:]
    hidden = int(oracle.constants.get("mid_full", 4096))
    for at, seed in enumerate(oracle["in_seeds"]):
        with torch.random.fork_rng():
            torch.manual_seed(int(seed))
            full = Centers(n_classes, hidden, bits)
        corners = torch.stack([layer.weight[:4, :4] for layer in full.head[::2]])
        oracle.check("out_seeded_weight_corners", corners.double(), at=at, rtol=1e-7, atol=1e-7)
        oracle.check("out_seeded_W", full.centers().double(), at=at, rtol=1e-5, atol=1e-5)


@consumes("rshnl__contrastive")
def contrastive(oracle: Oracle) -> None:
    f1, f2 = (tensor(oracle[f"in_f{k}"]).requires_grad_() for k in (1, 2))
    for at, (tau, r) in enumerate(oracle["in_tau_q"]):
        loss = contrastive_hashing(f1, f2, float(tau), float(r)).mean()
        oracle.check("out_loss", loss, at=at)
        for name, gradient in zip(("f1", "f2"), gradient_of(loss, f1, f2), strict=True):
            oracle.check(f"out_grad_{name}", gradient, at=at)


@consumes("rshnl__center_aggregation")
def center_aggregation(oracle: Oracle) -> None:
    f1, f2, w = (tensor(oracle[f"in_{k}"]).requires_grad_() for k in ("f1", "f2", "W"))
    y = tensor(oracle["in_y"]).double()
    for at, r in enumerate(oracle["in_r"]):
        first, second = (robust_shape(log_label_probability(f, w, y), float(r)) for f in (f1, f2))
        loss = (first + second).mean()
        oracle.check("out_l_img", first, at=at)
        oracle.check("out_l_txt", second, at=at)
        oracle.check("out_loss", loss, at=at)
        for name, gradient in zip(("f1", "f2", "W"), gradient_of(loss, f1, f2, w), strict=True):
            oracle.check(f"out_grad_{name}", gradient, at=at)


@consumes("rshnl__self_paced")
def self_paced(oracle: Oracle) -> None:
    f1, f2, w = (tensor(oracle[f"in_{k}"]).requires_grad_() for k in ("f1", "f2", "W"))
    y = tensor(oracle["in_y"]).double()
    items = _items(y)
    r, tau, alpha = (float(oracle[f"in_{k}"]) for k in ("r", "tau", "alpha"))
    for weights, names in (("linear", ""), ("hard", "hard_")):
        for at, gamma in enumerate(oracle["in_gamma"]):
            this = method(
                label_spec(len(y), y.shape[1], f1.shape[1]), gamma=float(gamma), r=r, tau=tau, weights=weights
            )
            difficulty = this.difficulty(f1, f2, w, items)
            weight, paced = this.self_paced(difficulty)
            if weights == "hard":  # the official regulariser is float32, as its weights are
                paced = paced + gamma * weight - (float(gamma) * weight.float()).double()
            loss = paced.mean() + alpha * contrastive_hashing(f1, f2, tau, r).mean()
            if at == 0:
                oracle.check("out_ell", difficulty)
            oracle.check(f"out_{names}weight", weight, at=at)
            oracle.check(f"out_{names}loss", loss, at=at)
            for name, gradient in zip(("f1", "f2", "W"), gradient_of(loss, f1, f2, w), strict=True):
                if f"out_{names}grad_{name}" in oracle.arrays:
                    oracle.check(f"out_{names}grad_{name}", gradient, at=at)


def _items(y: Tensor) -> Batch:
    index = torch.arange(len(y))
    return Batch(index, y, y, index, labels=y, text_labels=y)


def _training(oracle: Oracle, labels: Tensor, epochs: int, **params: Any) -> FullBatch:
    rate = float(oracle.get("in_lr", oracle.constants["lr"]))
    networks = {"centers": OfficialCenters(oracle, "emb"), "net": OfficialTowers(oracle)}
    images, texts = tensor(oracle["in_x_img"]), tensor(oracle["in_x_txt"])
    bits = networks["net"].image_head[-1].weight.shape[0]
    constants = {name: float(oracle.get(f"in_{name}", oracle.constants[name])) for name in ("alpha", "r", "tau")}
    warm_up = int(oracle.constants["tp"])
    this = method(label_spec(len(images), labels.shape[1], bits, epochs), warmup_epochs=warm_up, **(constants | params))
    return FullBatch(this, constant("adam", rate), networks, images, texts, labels)


def _update(run: FullBatch, epoch: int) -> Update:
    (only,) = run.driver.method.passes(epoch)
    assert isinstance(only, Pass)
    return only.updates[0]


@consumes("rshnl__total_step")
def total_step(oracle: Oracle) -> None:
    warm_up = int(oracle.constants["tp"])
    run = _training(oracle, tensor(oracle["in_y"]).double(), warm_up + 1, gamma=float(oracle["in_gamma"]))
    nets = run.driver.networks_of(0)
    oracle.check("out_step1_f1", nets["net"].images(tensor(oracle["in_x_img"])))
    oracle.check("out_step1_f2", nets["net"].texts(tensor(oracle["in_x_txt"])))
    oracle.check("out_step1_W", nets["centers"].centers())
    gradients = run.gradients(_update(run, 0))
    check_heads(oracle, "out_step1_grad_{}", gradients["net"], HEADS)
    check_heads(oracle, "out_step1_grad_{}", gradients["centers"], {"emb": "head"})
    for epoch in range(warm_up):
        log = run.step(_update(run, epoch))
        if epoch == 0:
            oracle.check("out_step1_loss", sum(log.losses.values())[0])
    late = {"rtol": 1e-6, "atol": 1e-6}
    oracle.check("out_step6_W", run.driver.networks_of(0)["centers"].centers(), **late)
    log = run.step(_update(run, warm_up))
    oracle.check("out_step6_loss", sum(log.losses.values())[0], **late)
    oracle.check("out_step6_weight", log.weight[0], **late)
    check_heads(oracle, "out_after6_{}", run.params("net"), HEADS, **late)
    check_heads(oracle, "out_after6_{}", run.params("centers"), {"emb": "head"}, **late)


@consumes("rshnl__train_trace")
def train_trace(oracle: Oracle) -> None:
    n_classes = int(oracle["in_emb_fc1_weight"].shape[1])
    gamma = float(oracle.get("in_gamma", oracle.constants["gamma"]))
    epochs = len(oracle.arrays["out_loss"])
    run = _training(oracle, one_hot(oracle["in_y_noisy"], n_classes), epochs, gamma=gamma)
    for epoch in range(epochs):
        bound = 1e-6 if epoch < 10 else 1e-4
        log = run.step(_update(run, epoch))
        oracle.check("out_loss", sum(log.losses.values())[0], at=epoch, rtol=bound, atol=bound)
        oracle.check("out_ell", log.sample_loss[0], at=epoch, rtol=bound, atol=bound)
        weight = -torch.ones(run.n, dtype=torch.float64) if log.weight is None else log.weight[0]
        oracle.check("out_weight", weight, at=epoch, rtol=bound, atol=bound)
    nets = run.driver.networks_of(0)
    late = {"rtol": 1e-4, "atol": 1e-4}
    oracle.check("out_final_W", nets["centers"].centers(), **late)
    oracle.check("out_final_val_f1", nets["net"].images(tensor(oracle["in_val_img"])), **late)
    oracle.check("out_final_val_f2", nets["net"].texts(tensor(oracle["in_val_txt"])), **late)
    assert bool(torch.isclose(F.normalize(nets["centers"].centers()), nets["centers"].centers()).all())
