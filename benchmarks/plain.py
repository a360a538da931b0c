"""The named baseline: one run of symmetric InfoNCE as a researcher would write it in an afternoon, without this suite's engine.

Same data, heads, loss, optimiser, schedule and batches as the method ``clip`` in one protocol; no registry, no log, no run axis.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from nocobench.datasets import noise, registry
from nocobench.datasets.reserve import reserve_images
from nocobench.datasets.types import PairSplit
from nocobench.protocols.protocol import Protocol
from torch import Tensor, nn


class Towers(nn.Module):
    """Linear - GELU - Linear per modality, unit embeddings, learnable scale."""

    def __init__(self, image_dim: int, text_dim: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.image_head = nn.Sequential(nn.Linear(image_dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.text_head = nn.Sequential(nn.Linear(text_dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        for layer in (*self.image_head, *self.text_head):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def embed(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Unit embeddings of both modalities."""
        return F.normalize(self.image_head(images), dim=-1), F.normalize(self.text_head(texts), dim=-1)

    def forward(self, images: Tensor, texts: Tensor) -> Tensor:
        image, text = self.embed(images, texts)
        return self.logit_scale.exp() * image @ text.T


def recalls(model: Towers, split: tuple[Tensor, Tensor, Tensor]) -> float:
    """Sum of R@1, 5, 10 of both directions by sorting the similarity matrix."""
    images, texts, own = split
    with torch.no_grad():
        image, text = model.embed(images, texts)
        similarity = image @ text.T
    top_texts, top_images = similarity.topk(10, 1).indices, similarity.topk(10, 0).indices.T
    hits = (own[top_texts] == torch.arange(len(images))[:, None]), (top_images == own[:, None])
    return float(sum(100 * hit[:, :k].any(1).float().mean() for hit in hits for k in (1, 5, 10)))


def optimizer_of(model: Towers, protocol: Protocol, steps: int) -> tuple[torch.optim.Optimizer, Callable[[int], float]]:
    """AdamW with decay on matrices, and the schedule's factor by step."""
    choice = protocol.budget.optimizer
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": choice.decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=choice.learning_rate, betas=choice.betas, eps=choice.eps)
    warmup = min(choice.schedule.warmup_steps, int(choice.schedule.warmup_share * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return optimizer, factor


def train(protocol: Protocol, rate: float, epochs: int, seed: int = 0) -> tuple[list[float], list[float], float]:
    """One run.

    Returns:
        CPU seconds of training and of evaluation, epoch by epoch, and the last test rSum.
    """
    torch.set_num_threads(protocol.numerics.threads)
    dataset = registry.load(protocol.dataset.name, None, **protocol.dataset.options)
    split = dataset.splits["train"]
    if protocol.grants.clean_meta_set is not None:
        split, _ = reserve_images(split, protocol.grants.clean_meta_set.share, dataset.name, 0)
    target = torch.from_numpy(
        noise.realise("nested-mismatch", dataset.name, split.image_of_caption, rate, seed).target_index
    )
    images, texts = torch.from_numpy(split.images), torch.from_numpy(split.captions)
    val, test = (_tensors(dataset.splits[name]) for name in ("val", "test"))  # type: ignore[index]
    torch.manual_seed(seed)
    random, size = np.random.default_rng(seed), protocol.budget.batch_size
    model = Towers(images.shape[1], texts.shape[1], protocol.backbone.hidden or 256, protocol.backbone.dim)
    per_epoch = len(texts) // size
    optimizer, factor = optimizer_of(model, protocol, per_epoch * epochs)
    training, evaluation, rsum = [], [], 0.0
    for epoch in range(epochs):
        started = time.process_time()
        order = torch.from_numpy(random.permutation(len(texts)))
        for step in range(per_epoch):
            index = order[step * size : (step + 1) * size]
            logits, diagonal = model(images[target[index]], texts[index]), torch.arange(size)
            loss = (F.cross_entropy(logits, diagonal) + F.cross_entropy(logits.T, diagonal)) / 2
            optimizer.zero_grad()
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = protocol.budget.optimizer.learning_rate * factor(epoch * per_epoch + step)
            optimizer.step()
        trained = time.process_time()
        recalls(model, val)
        rsum = recalls(model, test)
        training.append(trained - started)
        evaluation.append(time.process_time() - trained)
    return training, evaluation, rsum


def _tensors(split: PairSplit) -> tuple[Tensor, Tensor, Tensor]:
    return torch.from_numpy(split.images), torch.from_numpy(split.captions), torch.from_numpy(split.image_of_caption)
