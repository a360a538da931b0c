"""Parity with the official code of MGSH: networks, loss, selection, centres and the meta step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from nocobench.datasets.types import MetaView
from nocobench.methods.contract import Batch, Update
from nocobench.methods.mgsh import (
    Mgsh,
    WeightNet,
    adaptive_margin,
    alignment_target,
    center_loss,
    moved_centers,
    small_loss_mask,
    weighted_mean,
)
from nocobench.methods.nrch import normalised, prototype_residual, quantisation, share_a_label
from nocobench.methods.optim import Optimizer
from nocobench.protocols.batched import BatchedDriver
from nocobench.protocols.batches import Draws, PassPlan
from nocobench.protocols.drivers import StepLog, Tables
from official_networks import OfficialTowers, check_heads, constant, gradient_of, label_spec, tensor
from parity import Oracle, consumes
from torch import Tensor

HEADS = {"img": "image_head", "txt": "text_head"}
WEIGHT_LAYERS = {"0": "first", "2": "first_norm", "4": "second", "6": "second_norm", "8": "last"}


def weight_net(oracle: Oracle) -> WeightNet:
    net = WeightNet(oracle["in_mswn_mlp_0_weight"].shape[1]).double()
    official = {
        f"{ours}.{kind}": tensor(oracle[f"in_mswn_mlp_{layer}_{kind}"])
        for layer, ours in WEIGHT_LAYERS.items()
        for kind in ("weight", "bias")
    }
    net.load_state_dict(official)
    return net


def method(y: Tensor, bits: int, **params: Any) -> Mgsh:
    return Mgsh(replace(Mgsh.Params(), **params), label_spec(len(y), y.shape[1], bits))


def loss_constants(oracle: Oracle) -> dict[str, float]:
    names = {"mix": "lambda", "r": "r", "tau": "tau", "gamma": "margin"}
    return {ours: float(oracle[f"in_{official}"]) for ours, official in names.items()}


@consumes("mgsh__heads_forward")
def heads_forward(oracle: Oracle) -> None:
    towers = OfficialTowers(oracle)
    oracle.check("out_img_code", towers.images(tensor(oracle["in_img"])))
    oracle.check("out_txt_code", towers.texts(tensor(oracle["in_txt"])))


@consumes("mgsh__weight_net_forward")
def weight_net_forward(oracle: Oracle) -> None:
    oracle.check("out_weight", weight_net(oracle).logits(tensor(oracle["in_x"]))[:, 0].sigmoid())


@consumes("mgsh__robust_loss")
def robust_loss(oracle: Oracle) -> None:
    u, v, centers = (tensor(oracle[f"in_{k}"]).requires_grad_() for k in ("u", "v", "centers"))
    y, weights, margins = (tensor(oracle[f"in_{k}"]) for k in ("y", "weights", "margins_vec"))
    constants = loss_constants(oracle)
    shift = oracle.constants.get("shift", Mgsh.Params().shift)
    this = method(y, u.shape[1], **constants, shift=shift)
    items = Batch(torch.arange(len(y)), u, v, torch.arange(len(y)), labels=y, text_labels=y)
    for name, margin in (("fixed", constants["gamma"]), ("vec", margins)):
        losses = this.per_item(u, v, items, centers, margin)
        weighted = weighted_mean(losses, weights, None)
        oracle.check(f"out_loss_vec_{name}", losses)
        oracle.check(f"out_mean_loss_{name}", losses.mean())
        oracle.check(f"out_weighted_loss_{name}", weighted)
        for which, gradient in zip(("u", "v", "centers"), gradient_of(weighted, u, v, centers), strict=True):
            oracle.check(f"out_grad_weighted_loss_{name}_{which}", gradient)
    oracle.check("out_center_loss_scalar", center_loss(u.tanh(), v.tanh(), centers, y, y, constants["r"]).mean())
    oracle.check("out_quant_loss_vec", quantisation(u.tanh(), v.tanh()))
    neighbours = share_a_label(y, y) | torch.diag(y.any(1))
    oracle.check("out_neighbor_matrix", neighbours.double())


@consumes("mgsh__small_loss_selection")
def small_loss_selection(oracle: Oracle) -> None:
    u, v, codes, given = (tensor(oracle[f"in_{k}"]) for k in ("u", "v", "class_codes", "y_noisy"))
    losses = prototype_residual(u, v, codes.tanh(), given)
    oracle.check("out_raw_loss", losses)
    oracle.check("out_normalised_loss", normalised(losses))
    clean = (given == tensor(oracle["in_y_true"])).all(1)
    rate, ramp = float(oracle["in_noise_rate"]), int(oracle["in_num_gradual"])
    epochs = sorted(int(name.rpartition("epoch")[2]) for name in oracle.names if name.startswith("out_keep_mask_epoch"))
    for epoch in epochs:
        kept = small_loss_mask(losses, rate, epoch, ramp)
        oracle.check(f"out_keep_mask_epoch{epoch}", kept.double(), rtol=0.0, atol=0.0)
        oracle.check(f"out_precision_epoch{epoch}", (kept & clean).sum().double() / kept.sum())


@consumes("mgsh__center_update")
def center_update(oracle: Oracle) -> None:
    u, v, y, weights, centers = (tensor(oracle[f"in_{k}"]) for k in ("u", "v", "y", "weights", "centers"))
    rate, floor = float(oracle["in_eta"]), float(oracle["in_eps"])
    members = y * weights[:, None]
    oracle.check("out_centers", moved_centers(u, v, members, members, centers, rate, floor=floor))
    # Without weights the official code takes sigmoid(mean |code|), of each modality by itself.
    of_images, of_texts = (y * codes.abs().mean(1, keepdim=True).sigmoid() for codes in (u, v))
    oracle.check("out_centers_no_weights", moved_centers(u, v, of_images, of_texts, centers, rate, floor=floor))


class GivenShuffle(Mgsh):
    """MGSH with the permutation of the oracle file in place of its own draw."""

    order: Tensor

    def _shuffled(self, state: Any, kept: Tensor | None, size: int) -> Tensor:
        return self.order


class MetaSteps:
    """The three updates of an iteration on one training batch and one meta batch, through the engine's driver."""

    def __init__(self, oracle: Oracle) -> None:
        images, texts, meta_images, meta_texts = (
            tensor(oracle[f"in_{name}"]) for name in ("img", "txt", "meta_img", "meta_txt")
        )
        towers = OfficialTowers(oracle)
        bits, one_class = towers.image_head[-1].weight.shape[0], torch.ones(len(images), 1, dtype=torch.float64)
        params = replace(Mgsh.Params(), weight_dropout=0.0, **loss_constants(oracle))
        this = GivenShuffle(params, label_spec(len(images), 1, bits))
        this.order = torch.from_numpy(oracle["in_perm"])
        heads = Optimizer(
            "sgd", float(oracle["in_lr"]), momentum=0.0, decay=0.0, schedule=constant("sgd", 1.0).schedule
        )
        rules = {"net": heads, "weight": constant("adam", float(oracle["in_meta_lr"]))}
        this.optimizers = lambda: rules  # type: ignore[method-assign]
        meta = MetaView(meta_images, meta_texts, torch.arange(len(meta_images)))
        given = {"image_of_pair": torch.arange(len(images))[None], "labels": one_class[None]}
        self.driver = BatchedDriver(
            this, {"net": [towers], "weight": [weight_net(oracle)]}, Tables(images, texts, given, meta)
        )
        self.driver.state = {
            "kept": torch.ones(1, len(images), dtype=torch.float64),
            "centers": torch.full((1, 1, bits), bits**-0.5, dtype=torch.float64),
            "step": torch.zeros(1, dtype=torch.int64),
        }
        active = np.ones((1, 1), dtype=bool)
        sizes = {"all": len(images), "meta": len(meta_images)}
        drawn = {name: Draws(torch.arange(n)[None, None], None, active) for name, n in sizes.items()}
        self.plan = PassPlan(drawn, np.array([1]))

    def step(self, update: str, network: str) -> StepLog:
        return self.driver.step(Update(update, (network,)), self.plan, 0, {"net": [1.0], "weight": [1.0]})


@consumes("mgsh__l2m_step")
def meta_step(oracle: Oracle) -> None:
    run, constants = MetaSteps(oracle), loss_constants(oracle)
    run.step("pull pairs", "net")
    check_heads(oracle, "out_{}", {key: value[0] for key, value in run.driver.params["net"].items()}, HEADS)
    nets = run.driver.networks_of(0)
    images, texts = nets["net"].images(tensor(oracle["in_img"])), nets["net"].texts(tensor(oracle["in_txt"]))
    oracle.check("out_img_code", images)
    oracle.check("out_txt_code", texts)
    target = alignment_target(images, texts, torch.from_numpy(oracle["in_perm"]))
    oracle.check("out_w_target", target)
    oracle.check("out_gamma_hat", adaptive_margin(target, constants["gamma"], constants["tau"]))
    oracle.check("out_meta_pred_before", nets["weight"].logits(images * texts)[:, 0].sigmoid())
    oracle.check("out_meta_bce", run.step("fit weights", "weight").losses["weight"][0])
    weight = run.step("main", "net").weight
    assert weight is not None
    oracle.check("out_meta_weight", weight[0])
