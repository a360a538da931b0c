"""``ncr``: Noisy Correspondence Rectifier (specs/ncr.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..datasets.types import TrainView
from .backbones import towers
from .contract import (
    Batch,
    Budget,
    Difference,
    GradientMethod,
    Networks,
    Partition,
    Pass,
    Reinit,
    Run,
    State,
    StepOutput,
    Update,
)
from .losses import count_valid, hardest_hinge, mean_hinge
from .optim import Optimizer, Schedule
from .partition import gaussian_mixture_1d, min_max, ncr_clean_mask, separation_ratio
from .registry import register

PEER = {"a": "b", "b": "a"}


@register
class Ncr(GradientMethod):
    """Two networks divide the pairs for each other by the loss, and turn what they predict of a pair into its margin.

    Warm-up with all negatives (3.1). Then, at the start of every epoch, a two-component mixture on each network's losses splits the pairs
    (3.2); network k learns from the split of its peer. A pair's rectified label ``y`` (3.4) becomes a soft margin (3.5)::

        l_i = mean_j c1_ij + mean_j c2_ji                        w_i = p(small-loss component | l_i)
        y_i = w_i + (1 - w_i) P^k_i  (clean),   (P^A_i + P^B_i) / 2  (noisy)
        a_i = alpha (m^y_i - 1) / (m - 1),      L = sum_i max_j c1_ij + sum_j max_i c2_ij

    Clean and noisy parts are separate updates; the noisy part begins in the second half of the epochs. At test time the similarities of
    both networks are averaged. The suite's default encoder is a pair of heads with plain cosine (spec section 5B).
    """

    @dataclass(frozen=True)
    class Params:
        margin: float = 0.2  # alpha; run.py
        base: float = 10.0  # m of the exponential soft margin; ncr.md 3.5
        soft_margin: str = "exponential"  # or "linear", "sin"; ncr.md 3.5
        label_mode: str = "paper"  # "released" (B x B labels), "pl0" (first sample's prediction), "none" (margin alpha); ncr.md 7.1-7.3
        margin_axis: str = "query"  # "row": margin of the image's row in both directions (released); ncr.md 7.4
        clean_threshold: float = 0.5  # p_threshold; run.py
        clip_norm: float = 2.0  # gradient norm; run.py
        warmup_epochs: int = 3  # suite for heads: 3-5, ncr.md 5B; Flickr30K 5, COCO 10 (README)
        noisy_from: float = 0.5  # share of the epochs after warm-up without the noisy part; co_train.py, ncr.md 7.5
        guard_ratio: float = 0.0  # below it "no noise found", all pairs clean; 0 = off; suite, hana.md 3.2(4)

    label = "NCR"
    reference = (
        "Z. Huang et al., Learning with Noisy Correspondence for Cross-modal Matching, NeurIPS 2021; "
        "github.com/XLearning-SCU/2021-NeurIPS-NCR"
    )
    spec_page = "ncr.md"
    tested = ("a", "b")
    variants = {
        "paper": Params(),
        "released": Params(label_mode="released", margin_axis="row"),
        "released_2022": Params(label_mode="pl0", margin_axis="row"),
        "constant_margin": Params(label_mode="none"),
        "always_noisy": Params(noisy_from=0.0),
        "never_noisy": Params(noisy_from=1.0),
        "guard": Params(guard_ratio=0.25),
    }
    differences = (
        Difference(
            "clean label", "y_i = w_i + (1-w_i) P_i", "B x B matrix w_i + (1-w_i) P_j (broadcasting)", "ncr.md 7.3"
        ),
        Difference(
            "clean label before Nov 2023",
            "as above",
            "P of the first sample of the batch",
            "ncr.md 7.2 (variant released_2022)",
        ),
        Difference("margin", "of the query pair", "of the image row in both directions", "ncr.md 7.4"),
        Difference("first public code", "soft margin", "constant margin", "ncr.md 7.1 (variant constant_margin)"),
    )
    recipe = Budget(
        epochs=45,
        batch_size=128,
        optimizer=Optimizer("adam", 2e-4, (0.9, 0.999), 1e-8, decay=0.0, schedule=Schedule("step", period=35)),
    )

    @property
    def warmup(self) -> int:
        """Epochs of warm-up; at least one epoch is left for the method itself."""
        return self.warmup_epochs(self.params.warmup_epochs)

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        return {"a": towers(self.spec, scaled=False), "b": towers(self.spec, scaled=False)}

    def optimizers(self) -> Mapping[str, Optimizer]:
        return dict.fromkeys("ab", replace(self.spec.budget.optimizer, clip_norm=self.params.clip_norm))

    def state(self, train: TrainView, nets: Networks, run: Run) -> State:
        """Clean posteriors ``w``, the latest rectified labels ``y`` of each network's training pairs, and what the guard found."""
        ones = torch.ones(train.n_pairs, device=train.captions.device, dtype=train.captions.dtype)
        values = {f"{kind}_{name}": ones.clone() for kind in ("posterior", "label") for name in "ab"}
        return values | {"no_noise_found": ones.new_zeros(())}

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        size = self.spec.batch_size
        if epoch < self.warmup:
            return [Pass({"all": size}, (Update(f"warm up {name}", (name,)),)) for name in "ab"]
        begin = self.warmup + int(self.params.noisy_from * (self.spec.epochs - self.warmup))
        return [self._co_teaching_pass(name, size, epoch >= begin) for name in "ab"]

    def _co_teaching_pass(self, name: str, size: int, use_noisy: bool) -> Pass:
        clean, noisy = f"clean for {name}", f"noisy for {name}"
        updates = [Update(f"clean {name}", (name,), on=clean)]
        if use_noisy:
            updates.append(Update(f"noisy {name}", (name,), on=noisy))
        return Pass({clean: size, noisy: size} if use_noisy else {clean: size}, tuple(updates), last_batch="keep")

    def observes(self, epoch: int) -> bool:
        return epoch >= self.warmup

    def signals(self, nets: Networks, batch: Batch, state: State, epoch: int) -> Mapping[str, Tensor]:
        """Losses of both networks, and for the guard those of deliberately mismatched pairs (hana.md 3.2(4))."""
        similarity = {name: net.similarity(batch.images, batch.texts) for name, net in nets.items()}
        losses = {name: mean_hinge(values, self.params.margin) for name, values in similarity.items()}
        shifted = {name: mean_hinge(values.roll(-1, dims=1), self.params.margin) for name, values in similarity.items()}
        return losses | {f"mismatched_{name}": values for name, values in shifted.items()}

    def partition(
        self, nets: Networks, train: TrainView, signals: Mapping[str, Tensor], state: State, epoch: int
    ) -> Partition:
        """Co-divide (3.2): every network gets the split that its peer finds."""
        if not self.observes(epoch):
            return Partition()
        posterior = {name: clean_posterior(signals[name]) for name in "ab"}
        clean = {name: ncr_clean_mask(posterior[name], self.params.clean_threshold) for name in "ab"}
        facts, no_noise = {}, state["no_noise_found"]
        if epoch == self.warmup:
            ratios = [separation_ratio(signals[n], posterior[n], signals[f"mismatched_{n}"]) for n in "ab"]
            facts["guard_ratio"] = max(ratios)
            no_noise = torch.full_like(no_noise, float(facts["guard_ratio"] < self.params.guard_ratio))
        if bool(no_noise):
            posterior = {name: torch.ones_like(values) for name, values in posterior.items()}
            clean = {name: torch.ones_like(mask) for name, mask in clean.items()}
        subsets = {f"clean for {name}": clean[PEER[name]] for name in "ab"}
        subsets |= {f"noisy for {name}": ~clean[PEER[name]] for name in "ab"}
        given = {f"posterior_{name}": posterior[PEER[name]].to(state["posterior_a"].dtype) for name in "ab"}
        facts["estimated_noise_rate"] = float(1 - (clean["a"].double().mean() + clean["b"].double().mean()) / 2)
        return Partition(subsets, given | {"no_noise_found": no_noise}, posterior, facts)

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        kind, _, name = update.rpartition(" ")
        if kind == "warm up":
            pairs = batch["all"]
            losses = mean_hinge(nets[name].similarity(pairs.images, pairs.texts), self.params.margin)
            return StepOutput({"warm up": losses.sum()}, sample_loss=losses)
        changes = self._rectify(nets, batch, state, name) if kind == "clean" else {}
        pairs = batch[f"{kind} for {name}"]
        label = (dict(state) | changes)[f"label_{name}"][pairs.index]
        similarity = nets[name].similarity(pairs.images, pairs.texts)
        margins = self._margins(label, kind, nets, name, pairs, state)
        losses = hardest_hinge(similarity, *margins, pairs.valid)
        return StepOutput({kind: pairs.sum(losses)}, label, losses, changes)

    def _rectify(self, nets: Networks, batch: Mapping[str, Batch], state: State, name: str) -> dict[str, Tensor]:
        """Labels of the clean and of the noisy batch, both before the networks move (3.3, 3.4)."""
        clean = batch[f"clean for {name}"]
        weight = state[f"posterior_{name}"][clean.index]
        labels = clean.write(
            state[f"label_{name}"], clean_label(weight, self._predict(nets, name, clean), self.params.label_mode)
        )
        noisy = batch.get(f"noisy for {name}")
        if noisy is not None:
            labels = noisy.write(labels, noisy_label(self._predict(nets, "a", noisy), self._predict(nets, "b", noisy)))
        return {f"label_{name}": labels}

    def _predict(self, nets: Networks, name: str, pairs: Batch) -> Tensor:
        here = {key: value.detach() for key, value in nets[name].params.items()}
        return predict(nets[name].at(here).similarity(pairs.images, pairs.texts), self.params.margin, pairs.valid)

    def _margins(
        self, label: Tensor, kind: str, nets: Networks, name: str, pairs: Batch, state: State
    ) -> tuple[Tensor | float, Tensor | float]:
        """Margins that broadcast against ``[image, text]``, for image queries and for text queries (3.5, 7.1-7.4)."""
        if self.params.label_mode == "none":
            return self.params.margin, self.params.margin
        if self.params.label_mode == "released" and kind == "clean":
            weight = state[f"posterior_{name}"][pairs.index]
            matrix = released_clean_labels(weight, self._predict(nets, name, pairs))
            margin = self._soft(matrix)
            return margin, margin
        margin = self._soft(label)
        return (
            (margin[:, None], margin[None, :])
            if self.params.margin_axis == "query"
            else (margin[:, None], margin[:, None])
        )

    def _soft(self, label: Tensor) -> Tensor:
        return soft_margin(label, self.params.margin, self.params.soft_margin, self.params.base)


def clean_posterior(losses: Tensor) -> Tensor:
    """Posterior of the small-loss component after min-max normalisation (3.2), ``[n_pairs]``."""
    return gaussian_mixture_1d(min_max(losses), max_iter=10, tol=1e-2, reg_covar=5e-4).posterior_low


def predict(similarity: Tensor, margin: float, valid: Tensor | None = None) -> Tensor:
    """Predicted correspondence P of every pair of a batch (3.3), ``[B]`` in [0, 1]."""
    return predict_raw(similarity, margin, valid).clamp(max=1)


def predict_raw(similarity: Tensor, margin: float, valid: Tensor | None = None) -> Tensor:
    """``p_i / tau`` before it is cut at 1: ``p_i = clip(alpha - l_i / 2, 0, alpha)``, tau the mean of the B//10 + 1 largest p."""
    score = (margin - mean_hinge(similarity, margin, valid) / 2).clamp(0, margin)
    if valid is None:
        top = torch.topk(score, len(score) // 10 + 1).values.mean()
    else:
        score = torch.where(valid, score, 0.0)
        taken = torch.arange(len(score), device=score.device) < count_valid(similarity, valid) // 10 + 1
        top = torch.where(taken, torch.sort(score, descending=True, stable=True).values, 0.0).sum() / taken.sum()
    return score / top.clamp(min=1e-12)


def clean_label(weight: Tensor, prediction: Tensor, mode: str = "paper") -> Tensor:
    """``y_i = w_i + (1 - w_i) P_i`` (3.4); mode ``pl0`` takes the first pair's prediction for all (7.2)."""
    return weight + (1 - weight) * (prediction[:1] if mode == "pl0" else prediction)


def noisy_label(one: Tensor, other: Tensor) -> Tensor:
    """``y_i = (P^A_i + P^B_i) / 2`` (3.4)."""
    return (one + other) / 2


def released_clean_labels(weight: Tensor, prediction: Tensor) -> Tensor:
    """``y_ij = w_i + (1 - w_i) P_j``, ``[B, B]``: what the released code hands to the loss since November 2023 (7.3)."""
    return weight[:, None] + (1 - weight[:, None]) * prediction[None, :]


def soft_margin(label: Tensor, margin: float, kind: str = "exponential", base: float = 10.0) -> Tensor:
    """Margin that grows with the label, same shape (3.5).

    Raises:
        ValueError: for an unknown kind.
    """
    if kind == "exponential":
        return margin * (base**label - 1) / (base - 1)
    if kind == "linear":
        return margin * label
    if kind == "sin":
        return margin * (torch.sin(torch.pi * label - torch.pi / 2) + 1) / 2
    raise ValueError(f"unknown soft margin {kind!r}; known: exponential, linear, sin")
