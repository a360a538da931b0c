"""Parity with the official code of MGSH: networks, loss, selection, centres and the meta step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from nocobench.methods.contract import Batch
from nocobench.methods.mgsh import (
    Mgsh,
    WeightNet,
    adaptive_margin,
    alignment,
    moved_centers,
    released_ranking,
    small_loss_mask,
)
from nocobench.methods.network import BoundNetwork
from nocobench.methods.nrch import normalised, prototype_residual, quantisation, share_a_label
from official_networks import OfficialTowers, constant, gradient_of, label_spec, layer_names, tensor
from parity import Oracle, consumes
from torch import Tensor

WEIGHT_LAYERS = {"0": "first", "2": "first_norm", "4": "second", "6": "second_norm", "8": "last"}


def weight_net(oracle: Oracle) -> BoundNetwork:
    net = WeightNet(oracle["in_mswn_mlp_0_weight"].shape[1]).double()
    params = {
        f"{ours}.{kind}": tensor(oracle[f"in_mswn_mlp_{layer}_{kind}"])
        for layer, ours in WEIGHT_LAYERS.items()
        for kind in ("weight", "bias")
    }
    return BoundNetwork(net, params)


def items_of(y: Tensor) -> Batch:
    index = torch.arange(len(y))
    return Batch(index, y, y, index, labels=y, text_labels=y)


def method(y: Tensor, bits: int, **params: Any) -> Mgsh:
    return Mgsh(replace(Mgsh.Params(), **params), label_spec(len(y), y.shape[1], bits))


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
    y, weights = tensor(oracle["in_y"]), tensor(oracle["in_weights"])
    mix, r, tau, margin = (float(oracle[f"in_{k}"]) for k in ("lambda", "r", "tau", "margin"))
    this = method(y, u.shape[1], mix=mix, r=r, tau=tau, gamma=margin)
    items, shares = items_of(y), share_a_label(y, y)
    centre = this._center_loss(u.tanh(), v.tanh(), items, centers).mean()
    for name, margins in (("fixed", margin), ("vec", tensor(oracle["in_margins_vec"]))):
        if name == "fixed":
            losses = this.per_item(u, v, items, {"centers": centers}, weights, None)
        else:
            ranking = released_ranking(u.tanh(), v.tanh(), shares, margins, tau, this.params.shift)
            losses = mix * ranking + (1 - mix) * (centre + quantisation(u.tanh(), v.tanh()))
        weighted = (weights * losses).sum() / (weights.sum() + 1e-8)
        oracle.check(f"out_loss_vec_{name}", losses)
        oracle.check(f"out_mean_loss_{name}", losses.mean())
        oracle.check(f"out_weighted_loss_{name}", weighted)
        for which, gradient in zip(("u", "v", "centers"), gradient_of(weighted, u, v, centers), strict=True):
            oracle.check(f"out_grad_weighted_loss_{name}_{which}", gradient)
    oracle.check("out_center_loss_scalar", centre)
    oracle.check("out_quant_loss_vec", quantisation(u.tanh(), v.tanh()))
    oracle.check("out_neighbor_matrix", (shares | torch.eye(len(y), dtype=torch.bool)).double())


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
    rate = float(oracle["in_eta"])
    floor = float(oracle["in_eps"])
    oracle.check("out_centers", moved_centers(u, v, y, weights, centers, rate, floor=floor))
    of_images, of_texts = (h.abs().mean(1).sigmoid() for h in (u, v))
    oracle.check("out_centers_no_weights", moved_centers(u, v, y, of_images, centers, rate, of_texts, floor))


@consumes("mgsh__l2m_step")
def meta_step(oracle: Oracle) -> None:
    constants = {name: float(oracle[f"in_{name}"]) for name in ("lambda", "r", "tau", "margin")}
    towers = OfficialTowers(oracle)
    bits = towers.image_head[-1].weight.shape[0]
    ones = torch.ones(len(oracle["in_meta_img"]), 1, dtype=torch.float64)
    this = method(ones, bits, mix=constants["lambda"], r=constants["r"], tau=constants["tau"], gamma=constants["margin"])
    meta = replace(items_of(ones), images=tensor(oracle["in_meta_img"]), texts=tensor(oracle["in_meta_txt"]))
    state = {"centers": torch.full((1, bits), bits**-0.5, dtype=torch.float64)}
    params = {name: value for name, value in towers.named_parameters()}
    loss = this._pull_pairs({"net": BoundNetwork(towers, params)}, meta, state)
    moved = {
        name: value - float(oracle["in_lr"]) * gradient
        for (name, value), gradient in zip(params.items(), torch.autograd.grad(loss, list(params.values())), strict=True)
    }
    for prefix, ours in (("img", "image_head"), ("txt", "text_head")):
        for layer in layer_names(oracle, prefix):
            for kind in ("weight", "bias"):
                oracle.check(f"out_{prefix}_{layer}_{kind}", moved[f"{ours}.0.{kind}"])
    after = BoundNetwork(towers, {name: value.detach() for name, value in moved.items()})
    images, texts = after.images(tensor(oracle["in_img"])), after.texts(tensor(oracle["in_txt"]))
    oracle.check("out_img_code", images)
    oracle.check("out_txt_code", texts)
    target = alignment(images, texts, torch.from_numpy(oracle["in_perm"]))
    oracle.check("out_w_target", target)
    oracle.check("out_gamma_hat", adaptive_margin(target, constants["margin"], constants["tau"]))
    weights = weight_net(oracle)
    params = {name: value.requires_grad_() for name, value in weights.params.items()}
    logits = weights.at(params).logits(images * texts)[:, 0]
    oracle.check("out_meta_pred_before", logits.sigmoid())
    error = torch.nn.functional.binary_cross_entropy(logits.sigmoid(), target)
    oracle.check("out_meta_bce", error)
    rule = constant("adam", float(oracle["in_meta_lr"]))
    gradients = dict(zip(params, torch.autograd.grad(error, list(params.values())), strict=True))
    start = {name: value.detach() for name, value in params.items()}
    rate = torch.tensor(rule.learning_rate, dtype=torch.float64)
    stepped, _ = rule.step(start, gradients, rule.start(start), rate, torch.tensor(1))
    oracle.check("out_meta_weight", weights.at(stepped).logits(images * texts)[:, 0].sigmoid())
