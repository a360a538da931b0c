"""``hana``: hardness and noise-aware robust retrieval, reconstructed from its abstract (specs/hana.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..datasets.types import TrainView
from .backbones import towers
from .contract import (
    Batch,
    BoundNetwork,
    GradientMethod,
    Networks,
    Partition,
    Pass,
    Reinit,
    Run,
    State,
    StepOutput,
    plain_pass,
)
from .losses import hardest_hinge, info_nce, match_log_probabilities
from .memory_bank import bank_losses, look_ahead, look_ahead_weight, nearest_clean_pairs, trusted_set
from .optim import Optimizer
from .partition import mixture_unless_equal, separation_ratio
from .registry import register


@register
class HaNa(GradientMethod):
    """Losses averaged over epochs decide which pairs are noisy and how hard the clean ones are; noisy pairs are not only given a small
    weight but gently pushed apart, the more so the better the model remembers them.

    On top of NPC's warm-up and memory bank (3.1)::

        lbar_i <- beta lbar_i + (1 - beta) l_i     p_i = posterior of the small-loss component on lbar        (3.2)
        c_i = p_i                                  clean: d_i >= theta, with d_i = p_i                         (3.2, 3.3)
        hbar_i <- beta hbar_i + (1 - beta) h_i     h_i = 1 - (p1_i + p2_i) / 2                                 (3.4)
        phi_i = 1 + delta lambda_t tanh((hbar_i - mu) / (sd + 1e-6))                                           (3.4)
        w_i = clip(c_i phi_i, 0, 2) if clean, else c_i        L_pos = sum_i w_i l_i / (sum_i w_i + 1e-6)       (3.3)
        q_i = 1[d_i < theta] (1 - d_i)                        L_anrl = mean_i q_i (a1_i + a2_i) / 2            (3.5)
        L = L_pos + bank_lambda mean_i (l(bI_i) + l(bT_i)) + anrl_lambda rho_t L_anrl                          (3.6)

    Only the abstract is public. Every equation is this suite's construction, and no number of it says anything about the original.
    """

    @dataclass(frozen=True)
    class Params:
        momentum_beta: float = 0.7  # share of the old value in the averages over epochs; 0 = off; hana.md 3.2
        momentum_on: Literal["loss", "posterior"] = "loss"  # what is averaged before the partition; 3.2
        hardness_delta: float = 0.5  # phi in [1 - delta, 1 + delta]; 0 = off; 3.4
        hardness: Literal["probability", "hinge", "rank"] = "probability"  # h_i; 3.4
        hinge_margin: float = 0.2  # in cosine, of hardness "hinge"; suite, the margin of VSE++ and NCR
        lambda_start: float = -1.0  # < 0: easy pairs count more, > 0: hard ones; preset `easy`, 3.4
        lambda_end: float = -1.0  # reached after `ramp` epochs; preset `up`: +0.5; 3.4
        ramp: int | None = None  # epochs over which lambda_t and rho_t move; None: all after warm-up; 3.4, 3.5
        anrl_lambda: float = 1.0  # weight of L_anrl; 0 = off; 3.5
        anrl_type: Literal["probability", "nlog", "hinge", "sigmoid"] = "probability"  # nlog: gamma 0, margin 0; 3.5
        anrl_gamma: float = 1.0  # focus on memorised mismatches; 3.5
        anrl_margin: float = 0.1  # m, a matching probability below which nothing is pushed; 3.5
        anrl_cosine: float = 0.2  # s_m, the same for types "hinge" and "sigmoid"; 3.5
        theta: float = 0.5  # clean: d_i >= theta; 3.2
        kappa: float = 1.0  # factor of noisy pairs in the others' softmax; 1 = InfoNCE, 0 = removed; 3.3
        confidence: Literal["gmm", "npc", "product", "soft", "soft_gmm"] = "gmm"  # c_i; 3.3
        soft_temperature: float = 0.5  # T of exp(-l/T), in units of the loss; 6.5
        norm: Literal["weight", "batch"] = "weight"  # divide L_pos by the sum of weights or by B; 3.3
        bank_lambda: float = 0.5  # weight of L_bank; NPC: 1; 0 = off; 3.1
        bank_threshold: float = 0.9  # clean probability of bank pairs; 3.1 (released NPC)
        bank_recipe: Literal["hana", "npc"] = "hana"  # npc: mixture on raw losses, no least size; 3.7, npc.md 3.1
        bank_refresh: bool = False  # build the bank again in every epoch; 3.1
        guard_ratio: float = 0.25  # below it "no noise found", all pairs clean; 0 = off; 3.2(4)
        warmup_epochs: int = 3  # plain InfoNCE; 3.1, section 4; 0 for residual_adapter
        clip_norm: float = 10.0  # gradient norm; 3.6

    label = "HaNa (reconstruction from the abstract; official code not released)"
    reference = (
        "F. Zhong, H. Yu, C. Zhu, S. Zhang, Hardness and Noise-Aware Robust Cross-modal Retrieval, AAAI 2026 (abstract); "
        "github.com/haiquan-yu/HaNa (no code)"
    )
    spec_page = "hana.md"
    flags = frozenset({"reconstruction"})
    weight_range = (0.0, 2.0)
    variants = {
        "paper": Params(),
        "up": Params(lambda_end=0.5),
        "no_momentum": Params(momentum_beta=0.0),
        "no_hardness": Params(hardness_delta=0.0),
        "no_anrl": Params(anrl_lambda=0.0),
        "no_bank": Params(bank_lambda=0.0),
        "no_guard": Params(guard_ratio=0.0),
        "soft": Params(confidence="soft_gmm", bank_lambda=0.0, momentum_beta=0.0, hardness_delta=0.0),
        "npc": Params(
            confidence="npc", momentum_beta=0.0, hardness_delta=0.0, anrl_lambda=0.0, guard_ratio=0.0, norm="batch",
            bank_lambda=1.0, bank_recipe="npc",
        ),
        "npc_confidence": Params(confidence="npc"),
        "strong_hardness": Params(hardness_delta=0.8),
        "no_noisy_negatives": Params(kappa=0.0),
    }  # fmt: skip

    @property
    def warmup(self) -> int:
        """Epochs of plain InfoNCE; at least one epoch is left for the method itself."""
        return self.warmup_epochs(self.params.warmup_epochs, pretrained=0)

    @property
    def _uses_look_ahead(self) -> bool:
        return self.params.confidence in ("npc", "product")

    @property
    def _uses_posterior(self) -> bool:
        return self.params.confidence in ("gmm", "product", "soft_gmm")

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        return {"net": towers(self.spec)}

    def optimizers(self) -> Mapping[str, Optimizer]:
        return {"net": replace(self.spec.budget.optimizer, clip_norm=self.params.clip_norm)}

    def state(self, train: TrainView, nets: Networks, run: Run) -> State:
        """Averages per pair (NaN: never seen), the bank, what the guard found, and the moments of the look-ahead copy."""
        unseen = torch.full((train.n_pairs,), torch.nan, device=train.captions.device, dtype=train.captions.dtype)
        positions, zero = torch.arange(train.n_pairs, device=unseen.device), unseen.new_zeros(())
        state: dict[str, Any] = {
            "loss_average": unseen, "hardness_average": unseen.clone(), "confidence_average": unseen.clone(),
            "clean_probability": torch.ones_like(unseen), "bank_of_image": positions, "bank_of_text": positions.clone(),
            "no_noise_found": zero, "hardness_level": zero.clone(), "anrl_level": zero.clone(),
        }  # fmt: skip
        if self._uses_look_ahead:
            count = torch.zeros((), dtype=torch.int64, device=unseen.device)
            state |= {"ahead": self.optimizers()["net"].start(nets["net"].params), "ahead_count": count}
        return state

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        return [plain_pass(self.spec.batch_size, "warm up" if epoch < self.warmup else "train")]

    def observes(self, epoch: int) -> bool:
        again = self._uses_posterior or self.params.bank_refresh
        return epoch == self.warmup or (again and epoch > self.warmup)

    def signals(self, nets: Networks, batch: Batch, state: State, epoch: int) -> Mapping[str, Tensor]:
        """Losses, and once the losses of deliberately mismatched pairs: text i + 1 in place of text i (3.2(1), 3.2(4))."""
        logits = nets["net"].logits(batch.images, batch.texts)
        if epoch > self.warmup:
            return {"loss": info_nce(logits)}
        return {"loss": info_nce(logits), "mismatched": info_nce(logits.roll(-1, dims=1))}

    def partition(
        self, nets: Networks, train: TrainView, signals: Mapping[str, Tensor], state: State, epoch: int
    ) -> Partition:
        """Momentum partition, guard and bank at the start of an epoch (3.1, 3.2)."""
        if epoch < self.warmup:
            return Partition()
        changes: dict[str, Tensor] = self.levels(epoch, state["anrl_level"])
        if not self.observes(epoch):
            return Partition(state=changes, clean_probability={"net": state["clean_probability"]})
        found, facts = self._clean_probability(signals, state, first=epoch == self.warmup)
        probability = found["clean_probability"]
        facts["estimated_noise_rate"] = share(probability < self.params.theta)
        if epoch > self.warmup:
            before = state["clean_probability"] < self.params.theta
            facts[f"flips_in_epoch_{epoch + 1}"] = share(before != (probability < self.params.theta))
        if epoch == self.warmup or self.params.bank_refresh:
            trusted = self.trusted_pairs(probability)
            image, text = nearest_clean_pairs(nets["net"], train, trusted)
            changes |= {"bank_of_image": image, "bank_of_text": text}
            facts["bank_share"] = share(trusted)
        return Partition({}, changes | found, {"net": probability}, facts)

    def levels(self, epoch: int, like: Tensor) -> dict[str, Tensor]:
        """``lambda_t`` (3.4) and ``rho_t`` (3.5) of the epoch."""
        ramp = self.spec.epochs - self.warmup - 1 if self.params.ramp is None else self.params.ramp
        progress = min(1.0, (epoch - self.warmup) / max(1, ramp))
        start, end = self.params.lambda_start, self.params.lambda_end
        return {
            "hardness_level": like.new_tensor(start + (end - start) * progress),
            "anrl_level": like.new_tensor(progress),
        }

    def _clean_probability(
        self, signals: Mapping[str, Tensor], state: State, first: bool
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """``lbar``, ``p`` and what the guard says, from the losses of one epoch (3.2); changes of the state, and facts."""
        beta, facts = self.params.momentum_beta, {}
        losses = signals["loss"]
        average = momentum(state["loss_average"], losses, beta if self.params.momentum_on == "loss" else 0.0)
        raw = self.params.bank_recipe == "npc"
        mixture = mixture_unless_equal(average, 100 if raw else 20, tol=1e-2, reg_covar=5e-4, normalise=not raw)
        posterior = torch.ones_like(average) if mixture is None else mixture.posterior_low.to(average.dtype)
        no_noise = state["no_noise_found"]
        if first:
            facts["guard_ratio"] = separation_ratio(average, posterior, signals["mismatched"])
            no_noise = torch.full_like(no_noise, float(facts["guard_ratio"] < self.params.guard_ratio))
            facts["no_noise_found"] = float(no_noise)
        elif self.params.momentum_on == "posterior":
            posterior = momentum(state["clean_probability"], posterior, beta)
        probability = torch.where(no_noise > 0, 1.0, posterior)
        return {"loss_average": average, "clean_probability": probability, "no_noise_found": no_noise}, facts

    def trusted_pairs(self, probability: Tensor) -> Tensor:
        """The strict clean set C of the bank (3.1; npc.md 3.1.3), ``[n_pairs]`` bool."""
        if self.params.bank_recipe == "npc":
            return trusted_set(probability, self.params.bank_threshold, at_least=1)
        size, n = self.spec.batch_size, len(probability)
        return trusted_set(probability, self.params.bank_threshold, size, otherwise=max(size, math.ceil(0.05 * n)))

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        pairs, net = batch["all"], nets["net"]
        cosine = net.similarity(pairs.images, pairs.texts)
        logits = net.scale() * cosine
        losses = info_nce(logits, pairs.valid)
        if update == "warm up":
            return StepOutput({"contrastive": pairs.mean(losses)}, sample_loss=losses)
        confidence, changes = self._confidence(net, pairs, losses.detach(), state)
        detector = (
            state["clean_probability"][pairs.index] if self.params.confidence in ("gmm", "soft_gmm") else confidence
        )
        clean = detector >= self.params.theta
        hardness, seen = self._hardness_factor(pairs, logits.detach(), cosine.detach(), clean, state)
        weight = torch.where(clean, (confidence * hardness).clamp(0, 2), confidence)
        positive = losses if self.params.kappa == 1 else self._less_noisy_negatives(logits, clean, pairs.valid)
        parts = {"positive": self._reduce(pairs, weight, positive)}
        if self.params.bank_lambda:
            image_side, text_side = bank_losses(net, net.params, pairs, state["bank_of_image"], state["bank_of_text"])
            parts["bank"] = self.params.bank_lambda * pairs.mean(image_side + text_side)
        if self.params.anrl_lambda:
            surely_noisy = torch.where(clean, 0.0, 1 - detector)  # q_i
            push = self._push(logits, cosine, net.scale().detach(), pairs.valid)
            parts["anrl"] = self.params.anrl_lambda * state["anrl_level"] * pairs.mean(surely_noisy * push)
        return StepOutput(parts, weight, losses, changes | seen)

    def _reduce(self, pairs: Batch, weight: Tensor, losses: Tensor) -> Tensor:
        if self.params.norm == "batch":
            return pairs.mean(weight * losses)
        return pairs.sum(weight * losses) / (pairs.sum(weight) + 1e-6)

    def _confidence(
        self, net: BoundNetwork, pairs: Batch, losses: Tensor, state: State
    ) -> tuple[Tensor, dict[str, Any]]:
        """``c_i`` of (3.3), ``[B]``, and what changes of the state; what the batch says of a pair is averaged over epochs."""
        posterior = state["clean_probability"][pairs.index]
        if self.params.confidence == "gmm":
            return posterior, {}
        changes: dict[str, Any] = {}
        if self._uses_look_ahead:
            rule, bank = self.optimizers()["net"], (state["bank_of_image"], state["bank_of_text"])
            step = lambda here: look_ahead(net, here, pairs, rule, state)  # noqa: E731
            fresh, changes = look_ahead_weight(net, pairs, bank, step, state)
        else:
            fresh = torch.exp(-losses / self.params.soft_temperature).clamp(max=1)
        fresh = momentum(state["confidence_average"][pairs.index], fresh, self.params.momentum_beta)
        changes["confidence_average"] = pairs.write(state["confidence_average"], fresh)
        return (posterior * fresh if self._uses_posterior else fresh), changes

    def _hardness_factor(
        self, pairs: Batch, logits: Tensor, cosine: Tensor, clean: Tensor, state: State
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """``phi_i`` of (3.4), ``[B]``, and the averages ``hbar``."""
        if not self.params.hardness_delta:
            return torch.ones_like(logits.diagonal()), {}
        counted = clean if pairs.valid is None else clean & pairs.valid
        if self.params.hardness == "probability":
            rows, columns = match_log_probabilities(logits, pairs.valid)
            hardness = 1 - (rows.exp() + columns.exp()) / 2
        elif self.params.hardness == "hinge":
            margin = self.params.hinge_margin
            hardness = (hardest_hinge(cosine, margin, margin, pairs.valid) / 2).clamp(max=1)
        else:
            hardness = rank_within(info_nce(logits, pairs.valid), counted)
        average = momentum(state["hardness_average"][pairs.index], hardness, self.params.momentum_beta)
        factor = hardness_factor(average, counted, self.params.hardness_delta, state["hardness_level"])
        return factor, {"hardness_average": pairs.write(state["hardness_average"], average)}

    def _less_noisy_negatives(self, logits: Tensor, clean: Tensor, valid: Tensor | None) -> Tensor:
        """InfoNCE in which noisy pairs enter the denominators of the others with factor kappa (3.3), ``[B]``."""
        diagonal = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        shift = math.log(max(self.params.kappa, 1e-4))
        as_text, as_image = (
            shift * (noisy & ~diagonal).to(logits.dtype) for noisy in (~clean[None, :], ~clean[:, None])
        )
        rows, _ = match_log_probabilities(logits + as_text, valid)
        _, columns = match_log_probabilities(logits + as_image, valid)
        return -(rows + columns) / 2

    def _push(self, logits: Tensor, cosine: Tensor, scale: Tensor, valid: Tensor | None) -> Tensor:
        """``(a1_i + a2_i) / 2`` of (3.5), ``[B]``: how strongly the own pair is to be pushed apart if it is noisy."""
        kind, excess = self.params.anrl_type, cosine.diagonal() - self.params.anrl_cosine
        if kind == "hinge":
            return excess.clamp(min=0)
        if kind == "sigmoid":
            return F.softplus(excess * scale) / scale
        gamma, margin = (0.0, 0.0) if kind == "nlog" else (self.params.anrl_gamma, self.params.anrl_margin)
        rows, columns = match_log_probabilities(logits, valid)
        return (negative_push(rows.exp(), margin, gamma) + negative_push(columns.exp(), margin, gamma)) / 2


def momentum(average: Tensor, value: Tensor, beta: float) -> Tensor:
    """``beta average + (1 - beta) value``; the value itself where there is no average yet (NaN)."""
    return torch.where(average.isnan(), value, beta * average + (1 - beta) * value)


def hardness_factor(average: Tensor, clean: Tensor, delta: float, level: Tensor | float) -> Tensor:
    """``phi_i = 1 + delta lambda tanh((hbar_i - mu) / (sd + 1e-6))`` with mean and sd (n - 1) of the clean pairs (3.4).

    Args:
        average: ``[B]``, hbar.
        clean: ``[B]`` bool; with fewer than two, phi = 1.
        delta: half the width of the range of phi.
        level: ``lambda_t`` in [-1, 1].

    Returns:
        ``[B]`` in [1 - delta, 1 + delta].
    """
    count = clean.sum()
    mean = torch.where(clean, average, 0.0).sum() / count.clamp(min=1)
    deviation = (torch.where(clean, average - mean, 0.0).square().sum() / (count - 1).clamp(min=1)).sqrt()
    factor = 1 + delta * level * torch.tanh((average - mean) / (deviation + 1e-6))
    return torch.where(count < 2, 1.0, factor)


def rank_within(losses: Tensor, clean: Tensor) -> Tensor:
    """Share of the batch's (other) clean pairs that have a smaller loss, ``[B]`` in [0, 1] (hardness "rank" of 3.4)."""
    smaller = (losses[None, :] < losses[:, None]) & clean[None, :]
    return (smaller.sum(1) / (clean.sum() - 1).clamp(min=1)).clamp(max=1).to(losses.dtype)


def negative_push(probability: Tensor, margin: float, gamma: float) -> Tensor:
    """``a = sg(x)^gamma (-log(1 - min(x, 1 - 1e-4)))`` with ``x = max(p - m, 0)``, elementwise (3.5)."""
    excess = (probability - margin).clamp(min=0)
    return excess.detach() ** gamma * -torch.log1p(-excess.clamp(max=1 - 1e-4))


def share(mask: Tensor) -> float:
    """Share of true entries."""
    return float(mask.double().mean())
