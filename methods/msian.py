"""``msian``: meta-learnt importance of pairs (specs/msian.md), and ``fixed_weight``, its control without meta-learning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import grad

from ..datasets.types import TrainView
from .backbones import towers
from .contract import (
    Batch,
    BoundNetwork,
    GradientMethod,
    Network,
    Networks,
    Partition,
    Pass,
    Reinit,
    Run,
    State,
    StepOutput,
    Update,
    plain_pass,
)
from .contract import (
    Params as Parameters,
)
from .losses import hardest_hinge, hinge_matrices, info_nce, weighted_mean
from .optim import Optimizer, Schedule, virtual_step
from .registry import register


class WeightNet(Network):
    """Meta-Weight-Net's VNet: Linear(k, h) - ReLU - Linear(h, 1) - sigmoid on detached inputs (msian.md section 3).

    Args:
        inputs: k, the number of input features per pair.
        hidden: h.
        monotone: start with a weight that falls with the loss (msian.md 4.2): first-layer weights |.|, second-layer weights -|.|, output
            bias 1.
    """

    def __init__(self, inputs: int = 1, hidden: int = 100, monotone: bool = False) -> None:
        super().__init__()
        self.linear1 = nn.Linear(inputs, hidden)
        self.linear2 = nn.Linear(hidden, 1)
        if monotone:
            self.linear1.weight.data.abs_()
            self.linear2.weight.data.abs_().neg_()
            nn.init.ones_(self.linear2.bias)

    def weigh(self, features: Tensor) -> Tensor:
        """``[B, k] -> [B]`` in (0, 1)."""
        return torch.sigmoid(self.linear2(torch.relu(self.linear1(features)))).squeeze(-1)


@register
class Msian(GradientMethod):
    """A small network turns what is known of a pair into its weight, and learns to do so from verified pairs.

    Every iteration (sections 3 and 4): a virtual gradient step of the encoder on the weighted batch (4.5), as a function of the weight net
    Phi; the loss of the moved encoder on verified pairs updates Phi through that step (4.3, second order); fresh weights without gradient
    enter the main step (4.4)::

        Theta'(Phi) = Theta - alpha_v grad_Theta L(w_Phi)      L_meta = mean_i l_i(Theta'(Phi); verified) + lambda_c L_ce(Phi)
        L = sum_i w_i l_i / (sum_i w_i + 1e-6),   w_i = G_Phi(a_i),   a_i detached

    Only MSIAN's abstract is public; this is the generic Meta-Weight-Net for pairs in that spirit.
    """

    @dataclass(frozen=True)
    class Params:
        pair_loss: str = "nce"  # or "triplet_max", "triplet_sum"; msian.md 4.1
        inputs: str = "sim"  # a_i: "loss" (Meta-Weight-Net) or "sim" (own similarity and its lead over the hardest negatives); 4.2
        monotone: bool = False  # start with a falling w(l), for inputs "loss"; 4.2
        bilevel: bool = True  # learn Phi through the virtual step; 4.3
        matching: float = 0.0  # lambda_c: weight of the matched/mismatched classifier loss; 4.3
        virtual_rate: float = 0.3  # alpha_v; 4.5 proposes 1.0, which overshoots on digits: variant virtual_rate_1
        hidden: int = 100  # width of the weight net; section 3
        weight_rate: float = 1e-3  # Adam on Phi; section 3
        weight_decay: float = 1e-4  # Adam on Phi; section 3
        norm: str = "weight"  # divide by the sum of weights, or ("batch") by B as Meta-Weight-Net; 4.4
        soft_margin: bool = False  # margin gamma w_i for triplet losses; 4.4 with tau_m = 1
        margin: float = 0.2  # gamma; 4.1
        warmup_epochs: int = 3  # plain loss first; section 5; 0 for residual_adapter
        meta_batch_size: int = 64  # verified pairs per update of Phi; section 5
        meta_every: int = 1  # update Phi every k-th batch; 4.5

    label = "MSIAN-style meta-reweighting (reconstruction; no official code)"
    reference = (
        "C. Mu, E. Yang, C. Deng, Meta Similarity Importance Assignment Network, SIGIR 2025 (abstract); "
        "J. Shu et al., Meta-Weight-Net, NeurIPS 2019, github.com/xjtushujun/meta-weight-net"
    )
    spec_page = "msian.md"
    flags = frozenset({"reconstruction", "clean-meta-set"})
    needs = frozenset({"clean-meta-set"})
    variants = {
        "paper": Params(),
        "virtual_rate_1": Params(virtual_rate=1.0),
        "mwn": Params(inputs="loss"),
        "mwn_monotone": Params(inputs="loss", monotone=True),
        "bce": Params(bilevel=False, matching=1.0),
        "both": Params(matching=0.1),
        "triplet": Params(pair_loss="triplet_max"),
        "triplet_soft_margin": Params(pair_loss="triplet_sum", soft_margin=True),
    }

    @property
    def warmup(self) -> int:
        """Epochs of the plain loss; at least one epoch is left for the method itself."""
        return self.warmup_epochs(self.params.warmup_epochs, pretrained=0)

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        inputs = 1 if self.params.inputs == "loss" else 3
        return {
            "net": towers(self.spec, scaled=self.params.pair_loss == "nce"),
            "weight": lambda: WeightNet(inputs, self.params.hidden, self.params.monotone),
        }

    def optimizers(self) -> Mapping[str, Optimizer]:
        constant = Schedule("constant")
        weight = Optimizer(
            "adam",
            self.params.weight_rate,
            (0.9, 0.999),
            1e-8,
            decay=self.params.weight_decay,
            decay_on="all",
            schedule=constant,
        )
        return {"net": self.spec.budget.optimizer, "weight": weight}

    def state(self, train: TrainView, nets: Networks, run: Run) -> State:
        """Weight and loss with which each pair was last used, for the polarity watch (4.6), and whether it has acted."""
        unknown = torch.full((train.n_pairs,), torch.nan, device=train.captions.device, dtype=train.captions.dtype)
        return {"weight": unknown, "loss": unknown.clone(), "restarted": torch.zeros((), device=unknown.device)}

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        if epoch < self.warmup:
            return [plain_pass(self.spec.batch_size, "warm up")]
        draws = {"all": self.spec.batch_size, "meta": min(self.params.meta_batch_size, self.spec.n_meta_images)}
        learn = Update("learn weights", ("weight",), every=self.params.meta_every)
        return [Pass(draws, (learn, Update("train", ("net",))) if self._learns else (Update("train", ("net",)),))]

    @property
    def _learns(self) -> bool:
        return self.params.bilevel or self.params.matching > 0

    def partition(
        self, nets: Networks, train: TrainView, signals: Mapping[str, Tensor], state: State, epoch: int
    ) -> Partition:
        """Polarity watch (4.6): weights that rise with the loss, or all sit near 1, start the weight net again, once."""
        seen = state["weight"].isfinite()
        weight, loss = state["weight"][seen], state["loss"][seen]
        if not self._learns or len(weight) < 2:
            return Partition()
        correlation = rank_correlation(weight, loss)
        mean, spread = float(weight.mean()), float(weight.std(correction=0))
        facts = {"weight_mean": mean, "weight_std": spread, "weight_loss_correlation": correlation}
        if float(state["restarted"]) or (correlation < 0 and not (mean > 0.95 and spread < 0.02)):
            return Partition(facts=facts)
        changes = {"restarted": torch.ones_like(state["restarted"])}
        return Partition(
            state=changes, facts=facts | {"weight_net_restarted_in_epoch": epoch + 1}, reinitialise=("weight",)
        )

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        pairs, net = batch["all"], nets["net"]
        if update == "warm up":
            losses = self.pair_losses(net, net.params, pairs)
            return StepOutput({"plain": pairs.mean(losses)}, sample_loss=losses)
        if update == "learn weights":
            return StepOutput(self.meta_loss(nets, pairs, batch["meta"]))
        losses, features = self._losses_and_features(net, net.params, pairs)
        weight = nets["weight"].weigh(features).detach()
        if self.params.soft_margin:
            losses = self.pair_losses(net, net.params, pairs, self._margin(weight))
        parts = {"weighted": self._reduce(losses, weight)}
        seen = {"weight": pairs.write(state["weight"], weight), "loss": pairs.write(state["loss"], losses.detach())}
        return StepOutput(parts, weight, losses.detach(), seen)

    def meta_loss(self, nets: Networks, pairs: Batch, meta: Batch) -> dict[str, Tensor]:
        """``L_bi + lambda_c L_ce`` (4.3), to be differentiated with respect to the weight net."""
        parts = {}
        if self.params.bilevel:
            moved = self.virtual_parameters(nets, pairs)
            parts["verified"] = meta.mean(self.pair_losses(nets["net"], moved, meta))
        if self.params.matching:
            parts["matching"] = self.params.matching * self._matching_loss(nets, meta)
        return parts

    def virtual_parameters(self, nets: Networks, pairs: Batch) -> Parameters:
        """``Theta'(Phi)`` of (4.5): one step of plain gradient descent on the weighted loss, differentiable in Phi."""
        net = nets["net"]

        def weighted(params: Parameters) -> Tensor:
            losses, features = self._losses_and_features(net, params, pairs)
            return self._reduce(losses, nets["weight"].weigh(features.detach()))

        return virtual_step(net.params, grad(weighted)(dict(net.params)), self.virtual_rate(net))

    def virtual_rate(self, net: BoundNetwork) -> Tensor | float:
        """Step size of the virtual step (4.5)."""
        return self.params.virtual_rate

    def _reduce(self, losses: Tensor, weight: Tensor) -> Tensor:
        return weighted_mean(losses, weight) if self.params.norm == "weight" else (weight * losses).mean()

    def pair_losses(self, net: BoundNetwork, params: Parameters, pairs: Batch, margin: Tensor | None = None) -> Tensor:
        """``l_i`` of (4.1), ``[B]``; ``margin [B]`` replaces the base margin of each query pair."""
        at = net.at(params)
        if self.params.pair_loss == "nce":
            return info_nce(at.logits(pairs.images, pairs.texts))
        rows = self.params.margin if margin is None else margin[:, None]
        columns = self.params.margin if margin is None else margin[None, :]
        similarity = at.similarity(pairs.images, pairs.texts)
        if self.params.pair_loss == "triplet_max":
            return hardest_hinge(similarity, rows, columns)
        image_asks, text_asks = hinge_matrices(similarity, rows, columns)
        return image_asks.sum(1) + text_asks.sum(0)

    def _losses_and_features(self, net: BoundNetwork, params: Parameters, pairs: Batch) -> tuple[Tensor, Tensor]:
        """``l_i`` and the weight net's input ``a_i`` of (4.2), detached, ``[B, k]``."""
        losses = self.pair_losses(net, params, pairs)
        if self.params.inputs == "loss":
            return losses, losses.detach()[:, None]
        return losses, similarity_features(net.at(params).similarity(pairs.images, pairs.texts).detach())

    def _matching_loss(self, nets: Networks, meta: Batch) -> Tensor:
        """``L_ce`` of (4.3): verified pairs against the same captions moved on by one, at the current encoder."""
        here = {key: value.detach() for key, value in nets["net"].params.items()}
        weight = nets["weight"].weigh
        moved = replace(meta, texts=meta.texts.roll(1, 0))
        matched = weight(self._losses_and_features(nets["net"], here, meta)[1])
        mismatched = weight(self._losses_and_features(nets["net"], here, moved)[1])
        tiny = torch.finfo(matched.dtype).tiny
        return -(matched.clamp(min=tiny).log() + (1 - mismatched).clamp(min=tiny).log()).mean() / 2

    def _margin(self, weight: Tensor) -> Tensor:
        """``gamma / (1 + (1/w - 1)^tau_m)`` with tau_m = 1, that is ``gamma w`` (4.4)."""
        return self.params.margin * weight.clamp(1e-3, 1 - 1e-3)


def similarity_features(similarity: Tensor) -> Tensor:
    """``4 (s_ii, s_ii - max_{j != i} s_ij, s_ii - max_{j != i} s_ji)``, ``[B, 3]`` (4.2, input ``sim``)."""
    own = similarity.diagonal()
    others = similarity - 4 * torch.eye(len(similarity), dtype=similarity.dtype, device=similarity.device)
    return 4 * torch.stack([own, own - others.amax(1), own - others.amax(0)], dim=1)


def rank_correlation(x: Tensor, y: Tensor) -> float:
    """Spearman's rank correlation of two vectors (ties in order of appearance)."""
    ranks = torch.stack([v.argsort(stable=True).argsort(stable=True).double() for v in (x, y)])
    return float(torch.corrcoef(ranks)[0, 1])


@register(name="fixed_weight")
class FixedWeight(Msian):
    """The monotone weight net of ``msian@mwn_monotone``, never updated: most of meta-weighting's gain is this shape (msian.md section 7).

    It needs no verified pairs.
    """

    label = "Fixed falling weight (no meta-learning)"
    spec_page = "msian.md 4.3, engine `fixed`; controls.md"
    flags = frozenset({"control"})
    needs = frozenset()
    variants = {"paper": Msian.Params(inputs="loss", monotone=True, bilevel=False)}

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        return [plain_pass(self.spec.batch_size, "warm up" if epoch < self.warmup else "train")]
