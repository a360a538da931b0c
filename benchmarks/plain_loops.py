"""Times the plain loops, and the floor: their matrix products alone, at the rate of this machine at these very shapes.

Every product of one epoch and of its evaluation is noted as it is called (operation, shapes, strides); then every different one is timed
by itself on warm memory, best of several, and the floor is the sum over all calls.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import torch
from measuring import best_of
from nocobench.datasets import label_noise, noise
from nocobench.datasets.reserve import reserve_images
from nocobench.datasets.types import PairDataset
from plain_labels import METHODS as LABEL_METHODS
from plain_labels import Items
from plain_pairs import METHODS as PAIR_METHODS
from plain_pairs import Pairs
from suite_runs import data, protocol_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")
SEED, RATE = 0, 0.4
Product = tuple[str, tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]]


class Products(TorchDispatchMode):
    """Notes every matrix product inside."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[Product] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), options: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in PRODUCTS:
            tensors = [x for x in given if isinstance(x, Tensor)][-2:]  # without what is added
            self.seen[name, tuple((tuple(x.shape), tuple(x.stride())) for x in tensors)] += 1
        return function(*given, **(options or {}))

    def seconds(self) -> float:
        """CPU seconds of all of them."""
        return sum(number * _seconds_of(product) for product, number in self.seen.items())

    def gflop(self) -> float:
        """Multiplications and additions, 10^9."""
        total = 0.0
        for (_, operands), number in self.seen.items():
            (first, _), (second, _) = operands
            size = 2 * second[-1]
            for length in first:
                size *= length
            total += number * size
        return total / 1e9


def _seconds_of(product: Product) -> float:
    first, second = (torch.rand(_room(*layout)).as_strided(*layout) for layout in product[1])
    out = first @ second
    repeats = max(3, min(50, int(2e9 / max(1, 2 * out.numel() * first.shape[-1]))))
    return best_of(repeats, lambda: torch.matmul(first, second, out=out))


def _room(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    return 1 + sum((length - 1) * step for length, step in zip(shape, stride, strict=True))


def tensors_of(made: PairDataset, labels: bool) -> dict[str, Any]:
    """What the loops read: features, and what the noise made of the training pairs or labels."""
    train, found = made.splits["train"], {}
    numpy = torch.from_numpy
    if labels:
        train, meta = reserve_images(train, 0.02, made.name, 0)
        assert made.n_classes is not None
        eye = torch.eye(made.n_classes)
        parts = {"train": train, "meta": meta, "val": made.splits["val"], "test": made.splits["test"]}
        found = {
            name: [numpy(part.images), numpy(part.captions), eye[numpy(part.labels)]] for name, part in parts.items()
        }
        rows = found["train"][2].to(torch.uint8).numpy()
        drawn = label_noise.realise("nested-symmetric", made.name, rows, RATE, SEED)
        found["train"][2] = numpy(drawn.labels).float()
        return found
    given = noise.realise("nested-mismatch", made.name, train.image_of_caption, RATE, SEED).target_index
    for name, part in made.splits.items():
        own = given if name == "train" else part.image_of_caption
        found[name] = (numpy(part.images), numpy(part.captions), numpy(own))
    return found


def epochs(
    method: str,
    size: dict[str, Any],
    folder: str,
    n_epochs: int = 1,
    fused: bool = False,
    floor: bool = False,
    **changes: Any,
) -> dict[str, Any]:
    """Train one run plainly: CPU seconds of every epoch and of its evaluation; with ``floor`` also those of the products alone.

    Returns:
        ``epoch`` (evaluation included), ``evaluate``, ``score``; with ``floor``: ``floor`` and ``floor_evaluate`` of one epoch, ``gflop``.
    """
    torch.manual_seed(SEED)
    protocol, labels = protocol_of(size, n_epochs, **changes), "n_classes" in size
    tensors = tensors_of(data(size, folder), labels)
    if labels:
        sizes = {"hidden": protocol.backbone.hidden, "bits": protocol.bits[0], "noise": RATE}
        loop: Any = LABEL_METHODS[method](Items(tensors, protocol.budget, sizes, fused))
    else:
        loop = PAIR_METHODS[method](Pairs(tensors, protocol.budget, fused))
    found: dict[str, Any] = {"epoch": [], "evaluate": []}
    loop.evaluate()  # as the suite does before training
    for _ in range(n_epochs):
        started = time.process_time()
        loop.epoch()
        trained = time.process_time()
        found["score"] = loop.evaluate()
        ended = time.process_time()
        found["epoch"].append(ended - started)
        found["evaluate"].append(ended - trained)
    if floor:
        with Products() as training:
            loop.epoch()
        with Products() as evaluation:
            loop.evaluate()
        evaluate = evaluation.seconds()
        found |= {
            "floor": training.seconds() + evaluate,
            "floor_evaluate": evaluate,
            "gflop": training.gflop() + evaluation.gflop(),
        }
    return found
