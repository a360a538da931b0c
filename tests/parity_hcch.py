"""Parity with the official code of HCCH: kernel, consensus code and the whole alternation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from nocobench.methods.hcch import AnchorKernel, Hcch, Iterate, Side, balanced, signs
from nocobench.protocols.map_metrics import average_precision
from official_networks import label_spec, tensor
from parity import Oracle, consumes
from torch import Tensor

MODALITIES = (("1", "img"), ("2", "txt"))


@consumes("hcch__rbf_kernel")
def kernel(oracle: Oracle) -> None:
    own = AnchorKernel(tensor(oracle["in_anchors"]))
    for name in ("train", "test"):
        oracle.check(f"out_K_{name}", own(tensor(oracle[f"in_{name}"])))


@consumes("hcch__hash_const")
def consensus(oracle: Oracle) -> None:
    found = balanced(tensor(oracle["in_C"]).mT, unused_fill()).mT
    oracle.check("out_continuous", found)
    oracle.check("out_sign", signs(found), exact=True)


@consumes("hcch__fit")
def fit(oracle: Oracle) -> None:
    features = [tensor(oracle[f"in_X{side}"]) for side, _ in MODALITIES]
    labels, codes = tensor(oracle["in_Y"]).double(), tensor(oracle["in_B0"]).double()
    given = [float(oracle[f"in_{name}"]) for name in ("alpha", "beta", "lambda")]
    width = oracle["in_P10"].shape[1]
    this = Hcch(
        replace(Hcch.variants["released"], alpha=given[0], beta=given[1], sparsity=given[2], width=width),
        label_spec(len(labels), labels.shape[1], codes.shape[1]),
    )
    sides = (Side(features[0], labels, this.params.alpha), Side(features[1], labels, this.beta(labels)))
    first, second = (tensor(oracle[f"in_P{side}0"]) @ tensor(oracle[f"in_R{side}0"]) for side, _ in MODALITIES)
    current, fill = Iterate((codes, codes), codes, (first, second)), unused_fill()
    found: dict[str, Tensor] = {}
    for at in range(len(oracle.arrays["out_H"])):
        current = this.advance(sides, current, fill)
        oracle.check("out_H", current.consensus, at=at, exact=True)
        for (side, _), of_side, hash_map in zip(MODALITIES, current.codes, current.maps, strict=True):
            oracle.check(f"out_B{side}", of_side, at=at, exact=True)
            oracle.check(f"out_W{side}", hash_map, at=at)
            found[side] = released_map(oracle, side, hash_map, of_side)
        oracle.check("out_map", torch.stack(list(found.values())), at=at)
    for (side, name), hash_map in zip(MODALITIES, current.maps, strict=True):
        oracle.check(f"out_test_code_{name}", (tensor(oracle[f"in_T{side}"]) @ hash_map).sign(), exact=True)


def released_map(oracle: Oracle, side: str, hash_map: Tensor, learned: Tensor) -> Tensor:
    """Test codes against learned codes of the same modality, ties in the order of the file; queries without a hit count as 0."""
    queries = (tensor(oracle[f"in_T{side}"]) @ hash_map).sign()
    relevant = tensor(oracle["in_YT"]).double() @ tensor(oracle["in_Y"]).double().mT > 0
    return average_precision(-queries @ learned.mT, relevant, "stable", absent=0.0).mean()


def unused_fill() -> np.random.Generator:
    """The official results are of full rank, nothing is drawn."""
    return np.random.Generator(np.random.Philox(key=0))
