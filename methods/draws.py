"""Random numbers inside a loss: pure functions of a key, a counter and a position, so that they can be mapped over runs.

``loss`` must not call a random generator, because the engine maps it over runs. A method that draws in every step (negative keys, dropout,
permutations) keeps a ``key`` in its state, taken from ``Run.generator``, and a step ``counter``; the same key, counter and position
always give the same number. The mixing function is the finaliser of splitmix64 (Steele, Lea, Flood, OOPSLA 2014) on wrapping 64-bit
integers.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed integer
_FIRST = -4658895280553007687  # 0xBF58476D1CE4E5B9
_SECOND = -7723592293110705685  # 0x94D049BB133111EB


def new_key(generator: np.random.Generator) -> Tensor:
    """A key for the state, int64 scalar."""
    return torch.tensor(int(generator.integers(0, 2**63 - 1)), dtype=torch.int64)


def words(key: Tensor, counter: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``shape`` pseudo-random int64 words of this key and counter (both int64 scalars)."""
    position = torch.arange(1, math.prod(shape) + 1, device=key.device).reshape(shape)
    start = _mixed(key + _GOLDEN * (counter + 1))
    return _mixed(start + _GOLDEN * position)


def uniform(key: Tensor, counter: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``shape`` float32 numbers in [0, 1), multiples of 2^-24."""
    return _shifted(words(key, counter, shape), 40).to(torch.float32) * 2.0**-24


def integers(key: Tensor, counter: Tensor, high: int, shape: tuple[int, ...]) -> Tensor:
    """``shape`` int64 numbers in [0, high), high at most 2^31 (bias below high / 2^32)."""
    return (_shifted(words(key, counter, shape), 32) * high) >> 32


def permutation(key: Tensor, counter: Tensor, n: int) -> Tensor:
    """A permutation of ``0..n-1``, int64."""
    return words(key, counter, (n,)).argsort(stable=True)


def _mixed(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)) * _FIRST
    z = (z ^ _shifted(z, 27)) * _SECOND
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, by: int) -> Tensor:
    """Logical shift to the right; torch's ``>>`` keeps the sign."""
    return (z >> by) & ((1 << (64 - by)) - 1)
