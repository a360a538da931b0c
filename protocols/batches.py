"""Which pairs each run sees in each iteration of a pass: index arrays for a whole shard, made before the pass starts.

Runs of a shard differ in their subsets, so they differ in the number of batches: a run that has used up its subset is inactive for the
remaining iterations. An incomplete batch is filled up with other pairs, all different from each other, that are marked as not valid.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..methods.contract import Pass

Order = Callable[[int, int], np.ndarray]
"""``order(slot, cycle)`` gives a permutation of all positions: one per draw of the pass and per time it starts again."""


@dataclass(frozen=True)
class Draws:
    """The batches of one draw: ``index [iterations, runs, B]``, ``valid`` likewise (None: all), ``active [iterations, runs]``."""

    index: Tensor
    valid: Tensor | None
    active: np.ndarray


@dataclass(frozen=True)
class PassPlan:
    """All draws of one pass; ``iterations [runs]`` is each run's own number of batches of the first draw."""

    draws: Mapping[str, Draws]
    iterations: np.ndarray

    @property
    def length(self) -> int:
        return int(self.iterations.max(initial=0))


def split_batches(subset: np.ndarray, others: np.ndarray, size: int, last_batch: str) -> tuple[np.ndarray, np.ndarray]:
    """Cut an ordered subset into batches.

    Args:
        subset: positions to draw, in order.
        others: all other positions, for filling up.
        size: batch size B.
        last_batch: ``drop`` or ``keep`` the incomplete one (one of a single pair is always dropped).

    Returns:
        ``index [batches, B]`` int64 and ``valid [batches, B]`` bool.
    """
    full = len(subset) // size
    index = subset[: full * size].reshape(full, size)
    valid = np.ones_like(index, dtype=bool)
    rest = subset[full * size :]
    if last_batch == "drop" or len(rest) < 2:
        return index, valid
    fill = np.concatenate([others, subset[: full * size]])[: size - len(rest)]
    if len(rest) + len(fill) < size:
        raise ValueError(f"batch size {size} exceeds the {len(rest) + len(fill)} pairs there are")
    index = np.vstack([index, np.concatenate([rest, fill])])
    return index, np.vstack([valid, np.arange(size) < len(rest)])


def plan_draw(
    masks: list[np.ndarray],
    size: int,
    last_batch: str,
    order: Sequence[Callable[[int], np.ndarray]],
    length: int | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Batches of one draw for all runs: ``index``, ``valid`` ``[length, runs, B]`` and ``count [runs]`` batches before starting again.

    ``length = None`` plans one walk through the subset (the first draw); otherwise the subset is reshuffled and drawn again.
    """
    walks = [_walk(mask, size, last_batch, orders, length) for mask, orders in zip(masks, order, strict=True)]
    longest = max(len(index) for index, _, _ in walks) if length is None else length
    runs = len(walks)
    index = np.zeros((longest, runs, size), dtype=np.int64)
    index[:] = np.arange(size)
    valid = np.zeros((longest, runs, size), dtype=bool)
    for run, (batches, marks, _) in enumerate(walks):
        index[: len(batches), run], valid[: len(marks), run] = batches, marks
    return index, valid, np.array([count for _, _, count in walks])


def _walk(
    mask: np.ndarray, size: int, last_batch: str, order: Callable[[int], np.ndarray], length: int | None
) -> tuple[np.ndarray, np.ndarray, int]:
    pieces: list[tuple[np.ndarray, np.ndarray]] = []
    cycle = 0
    while True:
        positions = order(cycle)
        inside = mask[positions]
        pieces.append(split_batches(positions[inside], positions[~inside], size, last_batch))
        cycle += 1
        drawn = sum(len(index) for index, _ in pieces)
        if length is None or drawn >= length or len(pieces[0][0]) == 0:
            break
    index = np.concatenate([piece[0] for piece in pieces])[:length]
    valid = np.concatenate([piece[1] for piece in pieces])[:length]
    return index, valid, len(pieces[0][0])


def plan_pass(
    this: Pass,
    masks: Mapping[str, list[np.ndarray]],
    orders: list[Callable[[str, int, int], np.ndarray]],
    device: torch.device,
) -> PassPlan:
    """Plan one pass of a shard.

    Args:
        this: the pass.
        masks: per draw and run, which positions belong to it.
        orders: per run, ``order(draw, slot, cycle)`` gives a permutation of the draw's positions.
        device: where the index arrays shall lie.

    Raises:
        KeyError: a draw names a subset that ``partition`` did not give.
    """
    draws: dict[str, Draws] = {}
    iterations = np.zeros(0, dtype=np.int64)
    for slot, (name, size) in enumerate(this.draws.items()):
        if name not in masks:
            raise KeyError(f"a pass draws from {name!r}, but partition gave only {sorted(masks)}")
        order = [functools.partial(of_run, name, slot) for of_run in orders]
        length = None if slot == 0 else int(iterations.max(initial=0))
        index, valid, count = plan_draw(masks[name], size, this.last_batch, order, length)
        if slot == 0:
            iterations = count
        own = np.arange(len(index))[:, None] < iterations
        active = valid.any(-1) & own
        # Decided by the pass alone: with a mask or without one, the arithmetic of a run must not depend on its neighbours.
        marks = torch.from_numpy(valid).to(device) if this.last_batch == "keep" else None
        draws[name] = Draws(torch.from_numpy(index).to(device), marks, active)
    return PassPlan(draws, iterations)


def one_caption_per_image(image_of_pair: Tensor, order: np.ndarray) -> np.ndarray:
    """The first caption of every image in this order: two captions of one image would be false negatives of each other."""
    images = image_of_pair.cpu().numpy()[order]
    return order[np.sort(np.unique(images, return_index=True)[1])]
