"""Parity with the official code of NRCH: loss, noise separator and training steps."""

from __future__ import annotations

from dataclasses import replace

import torch
from nocobench.methods.contract import Update
from nocobench.methods.nrch import Nrch, PrototypeTowers, clean_posterior, normalised, prototype_residual, share_a_label
from nocobench.methods.partition import gaussian_mixture_1d
from official_networks import FullBatch, OfficialTowers, check_heads, constant, gradient_of, label_spec, tensor
from parity import Oracle, consumes
from torch import nn

HEADS = {"img": "image_head", "txt": "text_head"}
SELECTED = Update("selected items")


class OfficialPrototypes(OfficialTowers, PrototypeTowers):
    def __init__(self, oracle: Oracle) -> None:
        OfficialTowers.__init__(self, oracle)
        self.prototypes = nn.Parameter(tensor(oracle["in_img_W"]))


@consumes("nrch__robust_loss")
def robust_loss(oracle: Oracle) -> None:
    u, v = (tensor(oracle[f"in_{k}"]).requires_grad_() for k in "uv")
    y = tensor(oracle["in_y"]).double()
    spec, shares = label_spec(len(y), y.shape[1], u.shape[1]), share_a_label(y, y)
    official = {name: oracle.constants[name] for name in ("margin", "shift", "tau") if name in oracle.constants}
    for at, mix in enumerate(oracle["in_lambda"]):
        loss = Nrch(Nrch.Params(mix=float(mix), **official), spec).per_item(u, v, shares).mean()
        oracle.check("out_loss", loss, at=at)
        for name, gradient in zip("uv", gradient_of(loss, u, v), strict=True):
            oracle.check(f"out_grad_{name}", gradient, at=at)


@consumes("nrch__dns")
def noise_separator(oracle: Oracle) -> None:
    u, v, codes, given = (tensor(oracle[f"in_{k}"]) for k in ("u", "v", "W", "y_noisy"))
    residual = prototype_residual(u, v, codes.tanh(), given)
    oracle.check("out_raw_loss", residual)
    oracle.check("out_norm_loss", normalised(residual))
    mixture = gaussian_mixture_1d(normalised(residual), max_iter=10, tol=0.5, reg_covar=5e-4)
    loose = {"rtol": 1e-3, "atol": 1e-3}
    oracle.check("out_prob_clean", clean_posterior(residual), **loose)
    order = torch.from_numpy(oracle.arrays["out_gmm_means"]).argsort().argsort()  # components come in any order
    for official, ours in (("means", mixture.means), ("vars", mixture.variances), ("weights", mixture.weights)):
        oracle.check(f"out_gmm_{official}", ours[order], **loose)
    before, after = (selection(oracle, residual, epoch) for epoch in (5, 30))
    oracle.check("out_selected_before_epoch20", before)
    oracle.check("out_selected", after)
    clean = (given == tensor(oracle["in_y_clean"])).all(1)
    oracle.check("out_precision", (after * clean).sum() / after.sum())


def selection(oracle: Oracle, residual: torch.Tensor, epoch: int) -> torch.Tensor:
    """Who is selected at this epoch (counted from 0) of the authors' recipe."""
    spec = label_spec(len(residual), oracle["in_W"].shape[0], 16, epochs=Nrch.recipe.epochs)  # type: ignore[union-attr]
    state = {"selected": torch.ones_like(residual), "no_noise_found": residual.new_zeros(())}
    this = Nrch(Nrch.Params(threshold=float(oracle["in_threshold"])), spec)
    signals = {"residual": residual, "mismatched": residual}
    return (state | dict(this.partition({}, None, signals, state, epoch).state))["selected"]  # type: ignore[arg-type]


@consumes("nrch__train_step")
def train_step(oracle: Oracle) -> None:
    images, texts, y = tensor(oracle["in_x_img"]), tensor(oracle["in_x_txt"]), tensor(oracle["in_y"])
    constants = oracle.constants
    optimizer = constant("rmsprop", constants["lr"], (0.9, 0.99), decay=constants["weight_decay"])
    this = Nrch(replace(Nrch.Params(), mix=constants["lambda_"]), label_spec(len(y), y.shape[1], 1))
    state = {"selected": torch.ones(len(y), dtype=torch.float64)}
    run = FullBatch(this, optimizer, {"net": OfficialPrototypes(oracle)}, images, texts, y, state=state)
    net = run.driver.networks_of(0)["net"]
    oracle.check("out_u", net.images(images))
    oracle.check("out_v", net.texts(texts))
    gradients = run.gradients(SELECTED)["net"]
    check_heads(oracle, "out_grad_{}", gradients, HEADS)
    oracle.check("out_grad_img_W", gradients["prototypes"])
    for at in range(len(oracle.arrays["out_robust_loss"])):
        log = run.step(SELECTED)
        oracle.check("out_robust_loss", log.losses["hashing"][0], at=at)
        oracle.check("out_class_loss", log.losses["prototypes"][0], at=at)
    check_heads(oracle, "out_after3_{}", run.params("net"), HEADS)
    oracle.check("out_after3_img_W", run.params("net")["prototypes"])
