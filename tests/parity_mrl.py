"""Parity with the official code of MRL: both losses, also for three views, and training steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from nocobench.methods.contract import Update
from nocobench.methods.mrl import ClusterTowers, Mrl, multimodal_contrastive, robust_clustering
from official_networks import FullBatch, OfficialTowers, check_heads, gradient_of, label_spec, one_hot, tensor
from parity import Oracle, consumes
from torch import nn

HEADS = {"img": "image_head", "txt": "text_head"}


class OfficialClusters(OfficialTowers, ClusterTowers):
    """The heads of an oracle file and its centres, which get unit length as before every iteration."""

    def __init__(self, oracle: Oracle) -> None:
        OfficialTowers.__init__(self, oracle, squash=False)
        self.centers = nn.Parameter(self.constrain({"centers": tensor(oracle["in_C"]).mT})["centers"])


@consumes("mrl__losses")
def losses(oracle: Oracle) -> None:
    z1, z2, z3, c = (tensor(oracle[f"in_{name}"]).requires_grad_() for name in ("z1", "z2", "z3", "C"))
    labels = one_hot(oracle["in_y"][0], c.shape[1])
    for at, tau in enumerate(map(float, oracle["in_tau"])):
        clustering = robust_clustering(z1 @ c / tau, labels).mean()
        oracle.check("out_rc", clustering, at=at)
        for name, gradient in zip(("z1", "C"), gradient_of(clustering, z1, c), strict=True):
            oracle.check(f"out_grad_{name}_rc", gradient, at=at)
        two = multimodal_contrastive((z1, z2), tau).mean()
        oracle.check("out_mc2", two, at=at)
        for name, gradient in zip(("z1", "z2"), gradient_of(two, z1, z2), strict=True):
            oracle.check(f"out_grad_{name}_mc2", gradient, at=at)
        three = multimodal_contrastive((z1, z2, z3), tau).mean()
        oracle.check("out_mc3", three, at=at)
        oracle.check("out_grad_z3_mc3", gradient_of(three, z3)[0], at=at)


@consumes("mrl__train_step")
def train_step(oracle: Oracle) -> None:
    images, texts = tensor(oracle["in_x_img"]), tensor(oracle["in_x_txt"])
    n_classes = oracle["in_C"].shape[1]
    labels, text_labels = (one_hot(np.asarray(y), n_classes) for y in oracle["in_y"])
    assert Mrl.recipe is not None
    optimizer = replace(Mrl.recipe.optimizer, learning_rate=float(oracle.constants["lr"]))
    spec = label_spec(len(images), n_classes, oracle["in_C"].shape[0])
    this = Mrl(replace(Mrl.variants["released"], beta=float(oracle.constants["beta"])), spec)
    net = OfficialClusters(oracle)
    run = FullBatch(this, optimizer, {"net": net}, images, texts, labels, text_labels)
    start = run.driver.networks_of(0)["net"]
    oracle.check("out_z_img", start.images(images))
    oracle.check("out_z_txt", start.texts(texts))
    gradients = run.gradients(Update("train"))["net"]
    oracle.check("out_grad_C", gradients["centers"].mT)
    check_heads(oracle, "out_grad_{}", gradients, HEADS)
    steps = len(oracle.arrays["out_loss"])
    for at in range(steps):
        if at == steps - 1:  # the official code gives the centres unit length before a step, ours after it
            net.constrain = lambda params: params  # type: ignore[method-assign]
        log = run.step(Update("train"))
        oracle.check("out_loss", sum(log.losses.values())[0], at=at)
    check_heads(oracle, f"out_after{steps}_{{}}", run.params("net"), HEADS)
    oracle.check(f"out_after{steps}_C", run.params("net")["centers"].mT)
