"""Parity with the official code of NIRNL: margin loss, objectives of the subsets, partition and class centres."""

from __future__ import annotations

import random
from dataclasses import replace

import torch
from nocobench.methods.nirnl import (
    Nirnl,
    barycenters,
    class_means,
    fused_probability,
    has_tied_vote,
    log_class_probability,
    margin_loss,
    neighbour_labels,
    pseudo_label,
    refine,
    starting_points,
)
from official_networks import gradient_of, label_spec, one_hot, tensor
from parity import Oracle, consumes
from torch import Tensor

SUBSETS = ("pure", "hard", "noisy")


@consumes("nirnl__losses")
def losses(oracle: Oracle) -> None:
    z1, z2 = (tensor(oracle[f"in_{name}"]).requires_grad_() for name in ("z1", "z2"))
    y, centers = tensor(oracle["in_y"]).double(), tensor(oracle["in_barycenters"])
    spec = label_spec(len(y), y.shape[1], z1.shape[1])
    log_p = [log_class_probability(z, centers, torch.ones(len(centers))) for z in (z1, z2)]
    oracle.check("out_p1", log_p[0].exp())
    oracle.check("out_p2", log_p[1].exp())
    oracle.check("out_fused", fused_probability(log_p))
    oracle.check("out_pseudo", pseudo_label(log_p).argmax(1))
    weight = float(oracle.constants["lamda"])
    released = Nirnl(Nirnl.Params(label_weight=weight, alpha=float(oracle["in_alpha"])), spec)
    terms = {subset: released.label_term(subset, log_p, (y, y)) for subset in SUBSETS}
    oracle.check("out_label_terms", torch.stack([terms[subset] for subset in SUBSETS]))
    unweighted = Nirnl(replace(released.params, weighs_hard=False), spec)
    terms["hard_unweighted"] = unweighted.label_term("hard", log_p, (y, y))
    for at, margin in enumerate(map(float, oracle["in_margin"])):
        ranking = margin_loss(z1, z2, margin).mean()
        oracle.check("out_rank_loss", ranking, at=at)
        objectives = {name: weight * term.mean() + released.alpha * ranking for name, term in terms.items()}
        for name, objective in {"rank": ranking, **objectives}.items():
            for side, gradient in zip(("z1", "z2"), gradient_of(objective, z1, z2), strict=True):
                if f"out_{name}_grad_{side}" in oracle.arrays:
                    oracle.check(f"out_{name}_grad_{side}", gradient, at=at)


@consumes("nirnl__partition")
def partition(oracle: Oracle) -> None:
    embeddings = tensor(oracle["in_f1"]), tensor(oracle["in_f2"])
    n_classes = oracle.arrays["out_soft_img"].shape[1]
    given = one_hot(oracle["in_y_noisy"], n_classes)
    soft = [neighbour_labels(z, given, int(oracle["in_top_k"])) for z in embeddings]
    oracle.check("out_soft_img", soft[0], exact=True)
    oracle.check("out_soft_txt", soft[1], exact=True)
    oracle.check("out_argmax_tie", torch.stack([has_tied_vote(s) for s in soft]))
    subsets = refine(soft, (given, given))
    oracle.check("out_partition", torch.stack([subsets[name] for name in SUBSETS]).int().argmax(0))
    clean = torch.from_numpy(oracle["in_y_noisy"] == oracle["in_y_clean"])
    oracle.check("out_clean_in_pure", (subsets["pure"] & clean).sum())
    tight = {"rtol": 1e-10, "atol": 1e-12}
    means, present = class_means(embeddings, (given, given))
    oracle.check("out_class_mean", means, **tight)
    assert bool(present.all())
    centers = barycenters(_official_starts(oracle, embeddings, given), means)
    oracle.check("out_barycenters", centers, rtol=1e-6, atol=1e-7)
    oracle.check("out_bary_to_mean", (centers - means).norm(dim=1), rtol=1e-6, atol=1e-7)


def _official_starts(oracle: Oracle, embeddings: tuple[Tensor, Tensor], given: Tensor) -> Tensor:
    """Python's generator draws a number per class among its images, then texts, in the loader's order."""
    order = torch.from_numpy(oracle["in_loader_order"])
    drawn = random.Random(int(oracle.constants["python_seed"]))
    share = [(drawn.randint(0, m - 1) + 0.5) / m for m in (2 * given.sum(0)).int().tolist()]
    return starting_points([z[order] for z in embeddings], [given[order]] * 2, torch.tensor(share, dtype=torch.float64))
