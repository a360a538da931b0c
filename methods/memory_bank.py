"""The memory bank of NPC and its kin: for every pair, the trusted pairs nearest to its image and to its text, and the look-ahead ratio.

See specs/npc.md sections 3.1 to 3.3. A bank is two vectors of pair positions; entries are complete pairs, image and text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad

from ..datasets.types import TrainView
from .contract import Batch, BoundNetwork, Params, State
from .losses import info_nce
from .optim import Optimizer


def nearest_clean_pairs(
    net: BoundNetwork, train: TrainView, clean: Tensor, normalise_bank: bool = True, block: int = 1024
) -> tuple[Tensor, Tensor]:
    """For every pair, the clean pair with the nearest image and the clean pair with the nearest text (npc.md 3.1.4).

    Args:
        net: a network with ``raw_images`` and ``raw_texts``.
        train: the training pairs of one run.
        clean: ``[n_pairs]`` bool, the trusted pairs; at least one.
        normalise_bank: cosine on both sides (paper); False leaves the bank side un-normalised (released, npc.md 7.6).
        block: queries per block; memory is ``block * n_clean``.

    Returns:
        ``bank_of_image, bank_of_text``: ``[n_pairs]`` positions of pairs. A pair may select itself.
    """
    trusted = clean.nonzero().squeeze(1)
    images, texts = net.raw_images(train.images), net.raw_texts(train.captions)
    image_hit = _nearest(images, images[train.image_of_pair[trusted]], normalise_bank, block)
    text_hit = _nearest(texts, texts[trusted], normalise_bank, block)
    return trusted[image_hit][train.image_of_pair], trusted[text_hit]


def _nearest(queries: Tensor, bank: Tensor, normalise_bank: bool, block: int) -> Tensor:
    queries = F.normalize(queries, dim=-1)
    bank = F.normalize(bank, dim=-1) if normalise_bank else bank
    return torch.cat([(part @ bank.mT).argmax(1) for part in queries.split(block)])


def trusted_set(posterior: Tensor, threshold: float, at_least: int, otherwise: int | None = None) -> Tensor:
    """Pairs with a clean probability above the threshold, ``[n_pairs]`` bool.

    If there are fewer than ``at_least``, the ``otherwise`` (default: ``at_least``) most probable ones instead.
    """
    clean = posterior > threshold
    if int(clean.sum()) >= at_least:
        return clean
    taken = at_least if otherwise is None else otherwise
    best = torch.sort(posterior, descending=True, stable=True).indices[: min(taken, len(posterior))]
    return torch.zeros_like(clean).index_fill(0, best, True)


def bank_losses(
    net: BoundNetwork, params: Params, batch: Batch, bank_of_image: Tensor, bank_of_text: Tensor
) -> tuple[Tensor, Tensor]:
    """Per-sample InfoNCE among the image-side entries of a batch, and among its text-side entries, ``[B]`` each (npc.md 3.2.2)."""
    at = net.at(params)
    sides = (batch.at(bank[batch.index]) for bank in (bank_of_image, bank_of_text))
    image_side, text_side = (info_nce(at.logits(entries.images, entries.texts), batch.valid) for entries in sides)
    return image_side, text_side


def confidence(before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """NPC's weight: ``r = (b0I/b1I + b0T/b1T) / 2``, ``w = 1 if r >= 1 else tanh(r)`` (npc.md 3.3).

    A bank loss that underflows to 0 gives no usable ratio; it counts as weight 1.

    Returns:
        ``ratio, weight``, both ``[B]``.
    """
    ratio = (before[0] / after[0] + before[1] / after[1]) / 2
    ratio = torch.where(ratio.isfinite(), ratio, 1.0)
    return ratio, torch.where(ratio < 1, torch.tanh(ratio), 1.0)


def look_ahead(
    net: BoundNetwork, here: Params, pairs: Batch, rule: Optimizer, state: State, scale: float = 1.0
) -> tuple[Params, Any]:
    """One optimiser step of a copy on the plain batch loss, noisy pairs included (npc.md 3.2.3).

    Args:
        net: the network; its learning rate is the step's.
        here: the parameters to start from, detached.
        rule: the base model's optimiser; the copy's gradient is not clipped.
        state: holds the copy's own moments ``ahead`` and the number of its steps ``ahead_count``.
        scale: factor of the gradient (released: 4, npc.md 7.4).

    Returns:
        Parameters and moments after the step.
    """

    def batch_loss(params: Params) -> Tensor:
        return scale * pairs.mean(info_nce(net.at(params).logits(pairs.images, pairs.texts), pairs.valid))

    assert net.learning_rate is not None
    unclipped = replace(rule, clip_norm=None)
    return unclipped.step(here, grad(batch_loss)(here), state["ahead"], net.learning_rate, state["ahead_count"] + 1)


def look_ahead_weight(
    net: BoundNetwork,
    pairs: Batch,
    bank: tuple[Tensor, Tensor],
    step: Callable[[Params], tuple[Params, Any]],
    state: State,
) -> tuple[Tensor, dict[str, Any]]:
    """NPC's weight ``[B]``, detached, and what changes of the state (npc.md 3.2, 3.3).

    Args:
        bank: ``bank_of_image, bank_of_text``.
        step: the look-ahead step from given parameters.
    """
    here = {key: value.detach() for key, value in net.params.items()}
    ahead, moments = step(here)
    before, after = bank_losses(net, here, pairs, *bank), bank_losses(net, ahead, pairs, *bank)
    _, weight = confidence(before, after)
    return weight.detach(), {"ahead": moments, "ahead_count": state["ahead_count"] + 1}
