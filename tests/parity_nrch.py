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


class OfficialPrototypes(OfficialTowers, PrototypeTowers):
    def __init__(self, oracle: Oracle) -> None:
        OfficialTowers.__init__(self, oracle)
        self.prototypes = nn.Parameter(tensor(oracle["in_img_W"]))


@consumes("nrch__robust_loss")
def robust_loss(oracle: Oracle) -> None:
    u, v = (tensor(oracle[f"in_{k}"]).requires_grad_() for k in "uv")
    y = tensor(oracle["in_y"]).double()
    spec = label_spec(len(y), y.shape[1], u.shape[1])
    for at, mix in enumerate(oracle["in_lambda"]):
        loss = Nrch(Nrch.Params(mix=float(mix)), spec).per_item(u, v, share_a_label(y, y)).mean()
        oracle.check("out_loss", loss, at=at)
        for name, gradient in zip("uv", gradient_of(loss, u, v), strict=True):
            oracle.check(f"out_grad_{name}", gradient, at=at)


@consumes("nrch__dns")
def noise_separator(oracle: Oracle) -> None:
    u, v, codes, given = (tensor(oracle[f"in_{k}"]) for k in ("u", "v", "W", "y_noisy"))
    losses = prototype_residual(u, v, codes.tanh(), given.double())
    oracle.check("out_raw_loss", losses)
    oracle.check("out_norm_loss", normalised(losses))
    mixture = gaussian_mixture_1d(normalised(losses), max_iter=10, tol=0.5, reg_covar=5e-4)
    loose = {"rtol": 1e-3, "atol": 1e-3}
    posterior = clean_posterior(losses)
    oracle.check("out_prob_clean", posterior, **loose)
    order = torch.from_numpy(oracle.arrays["out_gmm_means"]).argsort().argsort()  # components come in any order
    for name in ("means", "variances", "weights"):
        stored = {"variances": "vars"}.get(name, name)
        oracle.check(f"out_gmm_{stored}", getattr(mixture, name)[order], **loose)
    selected = posterior >= float(oracle["in_threshold"])
    oracle.check("out_selected", selected.double())
    oracle.check("out_selected_before_epoch20", torch.ones(len(u), dtype=torch.float64))
    clean = (given == tensor(oracle["in_y_clean"])).all(1)
    oracle.check("out_precision", (selected & clean).sum().double() / selected.sum())


@consumes("nrch__train_step")
def train_step(oracle: Oracle) -> None:
    images, texts, y = tensor(oracle["in_x_img"]), tensor(oracle["in_x_txt"]), tensor(oracle["in_y"]).double()
    constants = oracle.constants
    optimizer = constant("rmsprop", constants["lr"], (0.9, 0.99), decay=constants["weight_decay"])
    this = Nrch(replace(Nrch.Params(), mix=constants["lambda_"]), label_spec(len(y), y.shape[1], 1))
    run = FullBatch(this, optimizer, {"net": OfficialPrototypes(oracle)}, images, texts, y, state={"selected": torch.ones(len(y))})
    net = run.driver.networks_of(0)["net"]
    oracle.check("out_u", net.images(images))
    oracle.check("out_v", net.texts(texts))
    gradients = run.gradients(Update("train"))["net"]
    check_heads(oracle, "out_grad_{}", gradients, HEADS)
    oracle.check("out_grad_img_W", gradients["prototypes"])
    for at in range(len(oracle.arrays["out_robust_loss"])):
        log = run.step(Update("train"))
        oracle.check("out_robust_loss", log.losses["hashing"][0], at=at)
        oracle.check("out_class_loss", log.losses["prototypes"][0], at=at)
    check_heads(oracle, "out_after3_{}", run.params("net"), HEADS)
    oracle.check("out_after3_img_W", run.params("net")["prototypes"])
