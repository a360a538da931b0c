"""Every random draw of a run comes from here: a named bit generator keyed by a purpose and what the draw may depend on.

Dependence is chosen for fairness, so that methods are compared on common random numbers: batch order depends on (dataset, seed, epoch,
pass) and initialisation on (backbone, network name, seed), neither on the method; a method's own draws depend on the whole cell. The noise
has its own words in ``datasets.noise``. Permutations are the stable argsort of raw 64-bit words of Philox, so that they change neither
with the numpy nor with the torch version.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ..results.record import canonical_json


def _digest(purpose: str, depends_on: dict[str, Any]) -> bytes:
    return hashlib.sha256(canonical_json({"purpose": purpose, **depends_on}).encode()).digest()


def bits(purpose: str, **depends_on: Any) -> np.random.Philox:
    """A Philox bit generator keyed by the purpose and what it depends on."""
    return np.random.Philox(key=np.frombuffer(_digest(purpose, depends_on)[:16], dtype="<u8"))


def generator(purpose: str, **depends_on: Any) -> np.random.Generator:
    """A numpy generator over :func:`bits`."""
    return np.random.Generator(bits(purpose, **depends_on))


def permutation(n: int, purpose: str, **depends_on: Any) -> np.ndarray:
    """A permutation of ``0..n-1``, int64, the same under every library version."""
    return np.argsort(bits(purpose, **depends_on).random_raw(n), kind="stable").astype(np.int64)


@contextlib.contextmanager
def initialisation(purpose: str, **depends_on: Any) -> Iterator[None]:
    """Inside, torch's default CPU generator is seeded from the purpose; outside, nothing has changed.

    ``nn.Module`` constructors draw from the global generator and cannot be told otherwise, so it is lent to them and restored.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(_digest(purpose, depends_on)[:7], "little"))
        yield
