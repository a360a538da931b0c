"""The label-noise generators of released code, on legacy generators that are passed in; what published noise files were made with.

Official code seeds and calls the global generators of numpy and of Python; ``RandomState(seed)`` and ``random.Random(seed)`` give the
same streams. Our protocols use ``label_noise.py`` instead, whose draws do not depend on legacy generators.
"""

from __future__ import annotations

import random

import numpy as np

from .label_noise import halves_swapped


def _candidates(n: int, rate: float, python_random: random.Random) -> np.ndarray:
    """The first ``int(rate n)`` of a shuffled list, as a mask."""
    order = list(range(n))
    python_random.shuffle(order)
    chosen = np.zeros(n, dtype=bool)
    chosen[order[: int(rate * n)]] = True
    return chosen


def rshnl_symmetric(
    labels: np.ndarray, rate: float, numpy_random: np.random.RandomState, python_random: random.Random
) -> tuple[np.ndarray, np.ndarray]:
    """RSHNL, NIRNL: chosen rows get as many distinct labels as they had, out of all classes, the true ones included.

    Args:
        labels: ``[n, n_classes]`` of 0 and 1.

    Returns:
        the noisy labels uint8, and which rows were chosen.
    """
    n, n_classes = labels.shape
    numpy_random.shuffle(np.arange(n_classes))  # drawn, and used for asymmetric noise only
    chosen = _candidates(n, rate, python_random)
    noisy = labels.astype(np.uint8)
    for row in np.flatnonzero(chosen):
        drawn = numpy_random.choice(n_classes, int(labels[row].sum()), replace=False)
        noisy[row] = 0
        noisy[row, drawn] = 1
    return noisy, chosen


def nirnl_asymmetric(
    classes: np.ndarray,
    n_classes: int,
    rate: float,
    numpy_random: np.random.RandomState,
    python_random: random.Random,
) -> tuple[np.ndarray, np.ndarray]:
    """NIRNL: chosen items of the first half of the shuffled classes get the class opposite in the second half.

    Returns:
        noisy classes ``[n]`` and the mapping ``[n_classes]``.
    """
    order = np.arange(n_classes)
    numpy_random.shuffle(order)
    mapping = halves_swapped(order)
    chosen = _candidates(len(classes), rate, python_random)
    return np.where(chosen, mapping[classes], classes), mapping


def mrl_per_view(
    classes: np.ndarray,
    n_classes: int,
    rate: float,
    numpy_random: np.random.RandomState,
    python_random: random.Random,
    mode: str = "sym",
) -> np.ndarray:
    """MRL: each of two views by itself; symmetric noise draws from ``0..n_classes`` inclusive, so that one class does not exist.

    Returns:
        noisy classes ``[2, n]``.
    """
    order = np.arange(n_classes)
    numpy_random.shuffle(order)
    mapping = halves_swapped(order)
    views = []
    for _ in range(2):
        noisy = classes.astype(np.int64)
        for row in np.flatnonzero(_candidates(len(classes), rate, python_random)):
            noisy[row] = python_random.randint(0, n_classes) if mode == "sym" else mapping[classes[row]]
        views.append(noisy)
    return np.stack(views)


def nrch_flip(labels: np.ndarray, rate: float, numpy_random: np.random.RandomState) -> np.ndarray:
    """NRCH, MGSH: each chosen row loses one of its labels and gains one that it did not have; rows without any only gain one."""
    noisy = labels.astype(np.uint8)
    for row in numpy_random.choice(len(labels), int(len(labels) * rate), replace=False):
        present, absent = np.flatnonzero(labels[row] == 1), np.flatnonzero(labels[row] == 0)
        if len(present):
            noisy[row, numpy_random.choice(present)] = 0
        if len(absent):
            noisy[row, numpy_random.choice(absent)] = 1
    return noisy
