"""Parity with the label-noise generators of RSHNL, NIRNL, MRL, NRCH and MGSH."""

from __future__ import annotations

import random

import numpy as np
from nocobench.datasets.label_noise import wrong_affinity
from nocobench.datasets.released_label_noise import mrl_per_view, nirnl_asymmetric, nrch_flip, rshnl_symmetric
from parity import Oracle, consumes

Streams = tuple[np.random.RandomState, random.Random]


def streams(oracle: Oracle) -> Streams:
    of_numpy, of_python = (int(seed) for seed in oracle["in_seeds"])
    return np.random.RandomState(of_numpy), random.Random(of_python)


def one_hot(classes: np.ndarray, n_classes: int) -> np.ndarray:
    return np.eye(n_classes, dtype=np.uint8)[classes]


@consumes("noise_labels__rshnl_nirnl")
def rshnl_and_nirnl(oracle: Oracle) -> None:
    classes = oracle["in_label"].astype(np.int64)
    n_classes = len(oracle.arrays["out_asym_transition"])
    for at, rate in enumerate(oracle["in_rates"]):
        noisy, chosen = rshnl_symmetric(one_hot(classes, n_classes), float(rate), *streams(oracle))
        oracle.check("out_sym", noisy.argmax(1), at=at)
        oracle.check("out_sym_candidates", chosen, at=at)
        oracle.check("out_sym_effective", (noisy.argmax(1) != classes).mean(), at=at)
        oracle.check("out_sym_expected", rate * (1 - 1 / n_classes), at=at)
        swapped, mapping = nirnl_asymmetric(classes, n_classes, float(rate), *streams(oracle))
        oracle.check("out_asym", swapped, at=at)
        oracle.check("out_asym_effective", (swapped != classes).mean(), at=at)
        # RSHNL's own branch leaves the rows it chose without any label.
        oracle.check("out_rshnl_asym_empty_share", chosen.mean(), at=at)
        if at == 0:
            oracle.check("out_asym_transition", mapping)
    several = oracle["in_multilabel"]
    noisy, _ = rshnl_symmetric(several, float(oracle.get("in_multilabel_rate", 0.5)), *streams(oracle))
    oracle.check("out_sym_multilabel", noisy)
    oracle.check("out_sym_multilabel_changed", (noisy != several).any(1).mean())


@consumes("noise_labels__mrl")
def mrl(oracle: Oracle) -> None:
    classes = oracle["in_label"].astype(np.int64)
    n_classes = int(classes.max()) + 1
    for at, rate in enumerate(oracle["in_rates"]):
        noisy = mrl_per_view(classes, n_classes, float(rate), *streams(oracle))
        oracle.check("out_sym", noisy, at=at)
        oracle.check("out_sym_effective", (noisy != classes).mean(1), at=at)
        oracle.check("out_sym_phantom_share", (noisy == n_classes).mean(1), at=at)
        oracle.check("out_both_views_agree", (noisy[0] == noisy[1]).mean(), at=at)
        oracle.check("out_class_num_first_run", len(np.unique(classes)), at=at)
        oracle.check("out_class_num_cached_run", len(np.unique(noisy)), at=at)
        swapped = mrl_per_view(classes, n_classes, float(rate), *streams(oracle), mode="asym")
        oracle.check("out_asym", swapped, at=at)
        oracle.check("out_asym_effective", (swapped != classes).mean(1), at=at)


@consumes("noise_labels__nrch")
def nrch(oracle: Oracle) -> None:
    labels = oracle["in_label"].astype(np.uint8)
    for at, rate in enumerate(oracle["in_rates"]):
        noisy = nrch_flip(labels, float(rate), np.random.RandomState(int(oracle["in_seed"])))
        oracle.check("out_label", noisy, at=at)
        oracle.check("out_rows_changed", (noisy != labels).any(1).mean(), at=at)
        oracle.check("out_affinity_changed", wrong_affinity(noisy, labels), at=at, exact=True)
        oracle.check("out_wrong_positive_share", ((noisy == 1) & (labels == 0)).sum() / noisy.sum(), at=at)


@consumes("mgsh__label_noise")
def mgsh(oracle: Oracle) -> None:
    labels = oracle["in_labels"].astype(np.uint8)
    noisy = nrch_flip(labels, float(oracle["in_noise_rate"]), np.random.RandomState(int(oracle["in_seed"])))
    oracle.check("out_noisy", noisy.astype(np.float64))
    oracle.check("out_num_changed_rows", (noisy != labels).any(1).sum())
