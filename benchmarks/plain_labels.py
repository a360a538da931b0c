"""``rshnl`` and ``mgsh`` (released) as a researcher would write them for a single run: modules, ``torch.optim``, a loop.

Same towers, losses, optimiser, batches and number of steps as in the suite after its warm-up (specs: rshnl.md 2-5, mgsh.md 3.2, 5), other
random draws. Evaluation by the usual loop over queries with ``argsort``. See :mod:`plain_loops` for how they are timed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def head(wide: int, hidden: int, bits: int, bias: bool) -> nn.Sequential:
    last = nn.Linear(hidden, bits, bias=bias)
    return nn.Sequential(nn.Linear(wide, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), last)


def code(outputs: Tensor) -> Tensor:
    return F.normalize(outputs.tanh(), dim=1)


def robust(p: Tensor, r: float) -> Tensor:
    return (1 - r) * (1 - p.pow(r)) / r + r * (1 - p)


class Items:
    """Data of one run, batches, optimiser and evaluation.

    Args:
        tensors: images, texts and labels of ``train`` (noisy), ``val``, ``test`` and ``meta``.
        budget: of the protocol.
        sizes: ``hidden``, ``bits`` and ``noise`` (the known rate).
        fused: kind of ``torch.optim``'s optimiser.
    """

    def __init__(self, tensors: dict[str, Any], budget: Any, sizes: dict[str, Any], fused: bool) -> None:
        self.t, self.sizes, self.batch, self.rule, self.fused = (
            tensors,
            sizes,
            budget.batch_size,
            budget.optimizer,
            fused,
        )
        self.epochs, self.n = budget.epochs, len(tensors["train"][0])
        self.n_classes = tensors["train"][2].shape[1]

    def towers(self, bias: bool) -> nn.ModuleList:
        dims = [self.t["train"][side].shape[1] for side in range(2)]
        return nn.ModuleList([head(dim, self.sizes["hidden"], self.sizes["bits"], bias) for dim in dims])

    def optimizer(self, *parts: nn.Module) -> torch.optim.Optimizer:
        parameters = [p for part in parts for p in part.parameters()]
        options = {"fused": True} if self.fused else {}
        return torch.optim.Adam(
            parameters, lr=self.rule.learning_rate, betas=self.rule.betas, eps=self.rule.eps, **options
        )

    def evaluate(self, towers: nn.ModuleList) -> float:
        """MAP of the test split, the mean of both directions; validation is scored too."""
        score = 0.0
        for part in ("val", "test"):
            *features, labels = self.t[part]
            with torch.no_grad():
                codes = [code(tower(x)).sign().numpy() for tower, x in zip(towers, features, strict=True)]
            labels = labels.numpy()
            score = (mean_ap(codes[0], codes[1], labels) + mean_ap(codes[1], codes[0], labels)) / 2
        return score


def mean_ap(queries: np.ndarray, items: np.ndarray, labels: np.ndarray) -> float:
    """The field's loop over queries."""
    found = []
    for query, wanted in zip(queries, labels, strict=True):
        relevant = labels @ wanted > 0
        distance = 0.5 * (items.shape[1] - items @ query)
        place = np.flatnonzero(relevant[np.argsort(distance)]) + 1
        if len(place):
            found.append(np.mean(np.arange(1, len(place) + 1) / place))
    return float(100 * np.mean(found))


class Rshnl:
    """Self-paced weights from the fit to learnt class centres."""

    r, alpha, pace = 0.01, 0.1, 0.4

    def __init__(self, data: Items) -> None:
        self.data, self.towers = data, data.towers(bias=False)
        self.centers = head(data.n_classes, data.sizes["hidden"], data.sizes["bits"], True)
        self.optimizer = data.optimizer(self.centers, self.towers)
        k = data.n_classes
        best = math.e / (math.e + (k - 1) * math.exp(-1 / (k - 1)))
        low, high = (2 * float(robust(torch.tensor(p), self.r)) for p in (best, 1 / k))
        self.gamma = low + self.pace * (high - low)

    def contrastive(self, codes: Tensor) -> Tensor:
        size = len(codes) // 2
        kernel = (codes @ codes.T).exp() * (1 - torch.eye(2 * size))
        positive = kernel.diagonal(size)
        chosen = torch.cat([positive, positive]) / kernel.sum(1)
        return 2 * robust(chosen, self.r).mean()

    def epoch(self) -> None:
        images, texts, labels = self.data.t["train"]
        eye = torch.eye(self.data.n_classes)
        for index in torch.randperm(self.data.n).split(self.data.batch):
            centers = code(self.centers(eye))
            codes = [code(tower(x[index])) for tower, x in zip(self.towers, (images, texts), strict=True)]
            given = labels[index]
            fit = [(given * (h @ centers.T).softmax(1)).sum(1) for h in codes]
            difficulty = robust(fit[0], self.r) + robust(fit[1], self.r)
            weight = (1 - difficulty / self.gamma).clamp(min=0).detach()
            paced = weight * difficulty + self.gamma * (weight * weight / 2 - weight)
            loss = paced.mean() + self.alpha * self.contrastive(torch.cat(codes))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def evaluate(self) -> float:
        return self.data.evaluate(self.towers)


class Mgsh:
    """Selection by class codes, a step on verified pairs, a weight network, a weighted step."""

    gamma, tau, mix, r, shift = 0.5, 0.5, 0.7, 0.5, 1.0
    meta_batch = 64

    def __init__(self, data: Items) -> None:
        self.data, self.towers, bits = data, data.towers(bias=True), data.sizes["bits"]
        self.weigher = nn.Sequential(
            nn.Linear(bits, 64), nn.ReLU(), nn.LayerNorm(64), nn.Dropout(0.2),
            nn.Linear(64, 32), nn.ReLU(), nn.LayerNorm(32), nn.Dropout(0.2), nn.Linear(32, 1), nn.Sigmoid(),
        )  # fmt: skip
        self.optimizer, self.weigher_optimizer = data.optimizer(self.towers), data.optimizer(self.weigher)
        self.centers = torch.randn(data.n_classes, bits).sign() / bits**0.5
        self.class_codes = nn.init.orthogonal_(torch.empty(data.n_classes, bits)).tanh()
        self.passed = 0

    def codes(self, part: str, index: Tensor) -> tuple[Tensor, Tensor]:
        images, texts = self.data.t[part][:2]
        return code(self.towers[0](images[index])), code(self.towers[1](texts[index]))

    @torch.no_grad()
    def select(self) -> Tensor:
        """Whether an item is among those of small distance to the codes of their classes."""
        scores, labels = torch.zeros(self.data.n), self.data.t["train"][2]
        for index in torch.arange(self.data.n).split(self.data.batch):
            u, v = self.codes("train", index)
            residual = (1 - u @ self.class_codes.T) ** 2 + (1 - v @ self.class_codes.T) ** 2
            scores[index] = residual.masked_fill(labels[index] == 0, -torch.inf).amax(1)
        forget = self.data.sizes["noise"] * (self.passed + 1) / self.data.epochs
        kept = torch.zeros(self.data.n, dtype=torch.bool)
        kept[scores.argsort()[: int((1 - forget) * self.data.n)]] = True
        return kept

    def losses(self, u: Tensor, v: Tensor, labels: Tensor) -> Tensor:
        u, v = u.tanh(), v.tanh()
        similarity = u @ v.T
        own, eye = similarity.diagonal(), torch.eye(len(u), dtype=torch.bool)
        shares = ((labels @ labels.T > 0) & ~eye).float()
        ranking = -2 * own + 2 * self.gamma
        for anchor in (own[:, None], own[None, :]):
            shifted = torch.where((similarity >= anchor - self.gamma).detach(), similarity, similarity - self.shift)
            shifted = torch.where(eye, own[:, None].clamp(min=0), shifted)
            ranking = ranking + self.tau * (shifted * (1 - shares) / self.tau).exp().sum(1).log()
        fit = sum((robust((labels * (h @ self.centers.T).softmax(1)).sum(1), self.r) for h in (u, v)), torch.zeros(()))
        size = u.shape[1] ** -0.5
        quantised = ((u.abs() - size) ** 2).mean(1) + ((v.abs() - size) ** 2).mean(1)
        return self.mix * ranking + (1 - self.mix) * (fit.mean() + quantised)

    def step(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def epoch(self) -> None:
        kept, labels = self.select(), self.data.t["train"][2]
        n_meta = len(self.data.t["meta"][0])
        for index in torch.randperm(self.data.n).split(self.data.batch):
            index = index[kept[index]]
            if len(index) < 2:
                continue
            meta = torch.randperm(n_meta)[: self.meta_batch]
            ones = torch.ones(len(meta), self.data.n_classes)
            self.step(self.optimizer, self.losses(*self.codes("meta", meta), ones).mean())
            with torch.no_grad():
                u, v = self.codes("train", index)
                a, b = (u > 0).float(), (v > 0).float()
                target = (0.5 * ((a * b).sum(1) - (a * b[torch.randperm(len(b))]).sum(1))).sigmoid()
            self.step(self.weigher_optimizer, F.binary_cross_entropy(self.weigher(u * v)[:, 0], target))
            u, v = self.codes("train", index)
            weight = self.weigher((u * v).detach())[:, 0].detach()
            losses = self.losses(u, v, labels[index])
            self.step(self.optimizer, (weight * losses).sum() / (weight.sum() + 1e-8))
        self.passed += 1

    def evaluate(self) -> float:
        return self.data.evaluate(self.towers)


METHODS = {"rshnl": Rshnl, "mgsh": Mgsh}
