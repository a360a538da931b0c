"""``clip``, ``npc`` and ``ncr`` as a researcher would write them for a single run: modules, ``torch.optim``, a loop. No run axis, no log.

Same heads on CLIP features, losses, optimiser, batches and number of steps as in the suite (specs: clip.md, npc.md 3, ncr.md 3), other
random draws. Evaluation by sorting the similarity matrix. See :mod:`plain_loops` for how they are timed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn


class Heads(nn.Module):
    """``z = x + W2 GELU(W1 x)`` per modality, unit embeddings, learnable scale."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.inner = nn.ModuleList([nn.Linear(dim, dim), nn.Linear(dim, dim)])
        self.outer = nn.ModuleList([nn.Linear(dim, dim), nn.Linear(dim, dim)])
        self.scale = nn.Parameter(torch.tensor(math.log(100.0)))
        for layer in self.outer:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def embed(self, side: int, x: Tensor) -> Tensor:
        x = F.normalize(x, dim=1)
        return F.normalize(x + self.outer[side](F.gelu(self.inner[side](x))), dim=1)

    def similarity(self, images: Tensor, texts: Tensor) -> Tensor:
        return self.embed(0, images) @ self.embed(1, texts).T

    def logits(self, images: Tensor, texts: Tensor) -> Tensor:
        return self.scale.exp() * self.similarity(images, texts)


def info_nce(logits: Tensor) -> Tensor:
    """Both directions, per pair."""
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own, reduction="none") + F.cross_entropy(logits.T, own, reduction="none")) / 2


class Pairs:
    """Data of one run, batches, optimiser and evaluation.

    Args:
        tensors: images and captions of every split, ``given`` = the image that each training caption comes with, ``own`` of the others.
        budget: of the protocol.
        fused: kind of ``torch.optim``'s optimiser.
    """

    def __init__(self, tensors: dict[str, Any], budget: Any, fused: bool) -> None:
        self.t, self.fused, self.batch = tensors, fused, budget.batch_size
        self.rule, self.n = budget.optimizer, len(tensors["train"][1])
        self.steps = budget.epochs * (self.n // self.batch)
        self.step = 0

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        matrices = [p for p in model.parameters() if p.ndim >= 2]
        others = [p for p in model.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": self.rule.decay}, {"params": others, "weight_decay": 0.0}]
        options = {"fused": True} if self.fused else {}
        return torch.optim.AdamW(
            groups, lr=self.rule.learning_rate, betas=self.rule.betas, eps=self.rule.eps, **options
        )

    def update(
        self, optimizer: torch.optim.Optimizer, loss: Tensor, model: nn.Module, clip: float | None = None
    ) -> None:
        optimizer.zero_grad()
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()

    def schedule(self, *optimizers: torch.optim.Optimizer) -> None:
        """Linear warm-up and cosine, set before every step."""
        warmup = min(self.rule.schedule.warmup_steps, int(self.rule.schedule.warmup_share * self.steps))
        if self.step < warmup:
            factor = (self.step + 1) / warmup
        else:
            factor = 0.5 * (1 + math.cos(math.pi * (self.step - warmup) / max(1, self.steps - warmup)))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rule.learning_rate * factor
        self.step += 1

    def batches(self, keep: Tensor | None = None) -> Iterator[Tensor]:
        """Shuffled positions of training pairs."""
        order = torch.randperm(self.n)
        if keep is not None:
            order = order[keep[order]]
        return iter(order.split(self.batch)[: None if keep is not None else self.n // self.batch])

    def pairs(self, index: Tensor) -> tuple[Tensor, Tensor]:
        images, texts, given = self.t["train"]
        return images[given[index]], texts[index]

    @torch.no_grad()
    def evaluate(self, *models: Heads) -> float:
        """rSum of the test split; validation is scored too."""
        rsum = 0.0
        for part in ("val", "test"):
            images, texts, own = self.t[part]
            similarity = sum((model.similarity(images, texts) for model in models), torch.zeros(()))
            top_texts = similarity.argsort(1, descending=True)[:, :10]
            top_images = similarity.argsort(0, descending=True)[:10].T
            hits = (own[top_texts] == torch.arange(len(images))[:, None]), (top_images == own[:, None])
            rsum = float(sum(100 * hit[:, :k].any(1).float().mean() for hit in hits for k in (1, 5, 10)))
        return rsum


class Clip:
    """Symmetric InfoNCE."""

    def __init__(self, data: Pairs) -> None:
        self.data, self.model = data, Heads(data.t["train"][0].shape[1])
        self.optimizer = data.optimizer(self.model)

    def epoch(self) -> None:
        for index in self.data.batches():
            self.data.schedule(self.optimizer)
            self.data.update(self.optimizer, info_nce(self.model.logits(*self.data.pairs(index))).mean(), self.model)

    def evaluate(self) -> float:
        return self.data.evaluate(self.model)


class Npc:
    """Look-ahead weights and a memory bank; here every pair's bank entries are the pair itself."""

    def __init__(self, data: Pairs) -> None:
        self.data, self.model = data, Heads(data.t["train"][0].shape[1])
        self.ahead = copy.deepcopy(self.model)
        self.optimizer, self.ahead_optimizer = data.optimizer(self.model), data.optimizer(self.ahead)
        self.bank_of_image = self.bank_of_text = torch.arange(data.n)

    def bank(self, model: Heads, index: Tensor) -> tuple[Tensor, Tensor]:
        sides = (self.data.pairs(bank[index]) for bank in (self.bank_of_image, self.bank_of_text))
        first, second = (info_nce(model.logits(*pairs)) for pairs in sides)
        return first, second

    def epoch(self) -> None:
        for index in self.data.batches():
            self.data.schedule(self.optimizer, self.ahead_optimizer)
            pairs = self.data.pairs(index)
            self.ahead.load_state_dict(self.model.state_dict())
            self.data.update(self.ahead_optimizer, info_nce(self.ahead.logits(*pairs)).mean(), self.ahead)
            with torch.no_grad():
                before, after = self.bank(self.model, index), self.bank(self.ahead, index)
                ratio = (before[0] / after[0] + before[1] / after[1]) / 2
                weight = torch.where(ratio < 1, ratio.tanh(), 1.0)
            losses = info_nce(self.model.logits(*pairs))
            loss = (weight * losses).mean() + sum(self.bank(self.model, index), torch.zeros(())).mean()
            self.data.update(self.optimizer, loss, self.model, clip=10.0)

    def evaluate(self) -> float:
        return self.data.evaluate(self.model)


class Ncr:
    """Co-teaching of two networks with soft margins."""

    margin, base = 0.2, 10.0

    def __init__(self, data: Pairs) -> None:
        self.data = data
        self.models = [Heads(data.t["train"][0].shape[1]) for _ in range(2)]
        self.optimizers = [data.optimizer(model) for model in self.models]

    def hinges(self, similarity: Tensor, margin: Tensor | float) -> tuple[Tensor, Tensor]:
        own, eye = similarity.diagonal(), torch.eye(len(similarity), dtype=torch.bool)
        of_row, of_column = (margin[:, None], margin[None, :]) if isinstance(margin, Tensor) else (margin, margin)
        rows = (of_row + similarity - own[:, None]).clamp(min=0).masked_fill(eye, 0)
        columns = (of_column + similarity - own[None, :]).clamp(min=0).masked_fill(eye, 0)
        return rows, columns

    def mean_hinge(self, similarity: Tensor) -> Tensor:
        rows, columns = self.hinges(similarity, self.margin)
        return rows.mean(1) + columns.mean(0)

    @torch.no_grad()
    def predict(self, model: Heads, pairs: tuple[Tensor, Tensor]) -> Tensor:
        score = (self.margin - self.mean_hinge(model.similarity(*pairs)) / 2).clamp(0, self.margin)
        top = score.topk(len(score) // 10 + 1).values.mean()
        return (score / top.clamp(min=1e-12)).clamp(max=1)

    @torch.no_grad()
    def divide(self) -> list[Tensor]:
        """Clean posteriors by each network's losses."""
        losses = torch.zeros(2, self.data.n)
        for index in torch.randperm(self.data.n).split(self.data.batch):
            pairs = self.data.pairs(index)
            for k, model in enumerate(self.models):
                losses[k, index] = self.mean_hinge(model.similarity(*pairs))
        posteriors = []
        for of_network in losses:
            scaled = (of_network - of_network.min()) / (of_network.max() - of_network.min())
            table = scaled[:, None].double().numpy()
            mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0).fit(table)
            clean = mixture.predict_proba(table)[:, mixture.means_.argmin()]
            posteriors.append(torch.from_numpy(clean).float())
        return posteriors

    def epoch(self) -> None:
        posteriors = self.divide()
        for k, model in enumerate(self.models):
            self.teach(model, self.optimizers[k], posteriors[1 - k])
        self.data.step += self.data.n // self.data.batch

    def teach(self, model: Heads, optimizer: torch.optim.Optimizer, posterior: Tensor) -> None:
        clean = posterior > 0.5
        noisy = self.data.batches(~clean)
        for index in self.data.batches(clean):
            weight, pairs = posterior[index], self.data.pairs(index)
            label = weight + (1 - weight) * self.predict(model, pairs)
            others = next(noisy, None)
            if others is None:
                noisy = self.data.batches(~clean)
                others = next(noisy, None)
            work = [(pairs, label)]
            if others is not None and len(others) > 1:
                pairs = self.data.pairs(others)
                work.append((pairs, (self.predict(self.models[0], pairs) + self.predict(self.models[1], pairs)) / 2))
            for pairs, label in work:
                margin = self.margin * (self.base**label - 1) / (self.base - 1)
                rows, columns = self.hinges(model.similarity(*pairs), margin)
                self.data.update(optimizer, rows.amax(1).sum() + columns.amax(0).sum(), model, clip=2.0)

    def evaluate(self) -> float:
        return self.data.evaluate(*self.models)


METHODS = {"clip": Clip, "npc": Npc, "ncr": Ncr}
