"""``nirnl``: Neighbor-aware Instance Refining with Noisy Labels (specs/nirnl.md), real-valued."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..datasets.types import TrainView
from . import draws
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
from .hashing_towers import real_valued_towers
from .mrl import mean_over_labels
from .optim import Optimizer, Schedule
from .registry import MethodError, register

# The authors' own (nirnl.md section 4).
ALPHA = {"wikipedia": 0.9}
OTHER_ALPHA = 0.5
# Items embedded, or compared with all others, at once.
BLOCK = 1024
LAST_STEP = 0.01


@register
class Nirnl(GradientMethod):
    """Let nearest neighbours vote on every label, and treat items by the modalities in which they win the vote.

    Once per epoch (3.1, 3.2): the centre ``a_c`` of a class is the mean of all image and text embeddings given with it.
    In each modality the k nearest neighbours of item i have the mean label ``s_i``, whose argmax is their vote; *pure*
    items have the given label in both votes, *hard* ones in one, *noisy* ones in none. Then one pass over each subset,
    with ``p^m = softmax(z^m A^T)`` and ``P = 1 - (1 - p^1)(1 - p^2)``::

        pure     -ln p^1_y - ln p^2_y                                                              (3.5)
        hard     P_y (-ln p^1_y - ln p^2_y)                              no gradient through P
        noisy    |t - p^1|_1 + |t - p^2|_1,   t = one-hot(argmax P)      no gradient through t
        L_M      mean_ij [z^1_i.z^2_j - z^1_i.z^2_i + M]_+ + mean_ij [z^2_i.z^1_j - z^2_i.z^1_i + M]_+     (3.4)
        L        mean_i of the label term + alpha L_M

    The logged weight and the clean probability of an item are ``(s^1_i[y] + s^2_i[y]) / 2``, the share of neighbours
    that have its label (section 8); it is no factor of the loss. The logged loss is the pure term in all subsets.

    This suite's extensions: an item with several labels belongs to each of their classes, wins a vote that falls on one
    of them, and has the mean of the terms over them. Where noise treats each modality by itself, so do votes, centres
    and terms. A class that no item is given with has probability 0, and an empty subset is passed over; the released
    code crashes on an empty class and on an empty pure subset.
    """

    @dataclass(frozen=True)
    class Params:
        neighbours: int = 10  # k; main.py
        margin: float = 0.9  # M, in cosine; main.py
        label_weight: float = 1.0  # lamda, factor of the label term; main.py
        alpha: float | None = None  # of L_M; None = the authors' of the data set, else 0.5; nirnl.md section 4
        exact_barycenter: bool = False  # released iteration from a random start instead of the mean; 3.1
        with_diagonal: bool = True  # L_M also over j = i; False: paper, mean over j != i; 3.4
        weighs_hard: bool = True  # P_y in the hard term; main.py --hard_weight
        trains_hard: bool = True  # main.py --hard_train
        trains_noisy: bool = True  # main.py --noisy_train

    label = "NIRNL"
    reference = (
        "Y. Liu et al., Neighbor-aware Instance Refining with Noisy Labels, AAAI 2026; github.com/perquisite/NIRNL"
    )
    spec_page = "nirnl.md"
    task = "label-hashing"
    binary = False
    variants = {
        "released": Params(),
        "exact-barycenter": Params(exact_barycenter=True),
        "margin-off-diagonal": Params(with_diagonal=False),
        "hard-unweighted": Params(weighs_hard=False),
        "pure-only": Params(trains_hard=False, trains_noisy=False),
        "no-margin": Params(alpha=0.0),
    }
    differences = (
        Difference("class centres", "Wasserstein barycentres", "class means up to 0.01; ours: without error", "nirnl.md 3.1"),
        Difference("margin loss", "over j != i", "over j = i too, the constant M", "nirnl.md 3.4"),
        Difference("soft labels of the neighbours", "not known", "decide the partition and nothing else", "nirnl.md section 7"),
        Difference("items behind the centres", "not known", "all with the given label, whatever the partition", "nirnl.md section 7"),
        Difference("tied votes", "not known", "the first class; ours the same, their share is recorded", "nirnl.md section 7"),
        Difference("empty class, empty pure set", "not known", "crash; ours: probability 0, no pass", "nirnl.md section 7"),
        Difference("asymmetric noise", "not known", "half of the classes stay clean: about half the stated rate", "nirnl.md section 7"),
    )  # fmt: skip
    recipe = Budget(
        epochs=100,
        batch_size=256,
        optimizer=Optimizer("adam", 1e-4, (0.9, 0.999), 1e-8, decay=0.0, schedule=Schedule("constant")),
    )

    @property
    def alpha(self) -> float:
        """The weight of the margin loss that is used."""
        given = self.params.alpha
        return ALPHA.get(self.spec.dataset, OTHER_ALPHA) if given is None else given

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        return {"net": real_valued_towers(self.spec)}

    def state(self, train: TrainView, nets: Networks, run: Run) -> State:
        """Class centres, which classes there are, and the agreement of neighbours; ``partition`` fills them."""
        zeros = train.images.new_zeros
        classes = self.spec.n_classes
        state = {
            "centers": zeros(classes, self.spec.backbone.dim),
            "present": zeros(classes),
            "agreement": zeros(train.n_pairs),
        }
        if self.params.exact_barycenter:
            state["key"] = draws.new_key(run.generator("starts of the barycentres")).to(train.images.device)
        return state

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        wanted = {"pure": True, "hard": self.params.trains_hard, "noisy": self.params.trains_noisy}
        size = self.spec.batch_size
        return [
            Pass({subset: size}, (Update(subset),), last_batch="keep") for subset, trains in wanted.items() if trains
        ]

    def partition(
        self, nets: Networks, train: TrainView, signals: Mapping[str, Tensor], state: State, epoch: int
    ) -> Partition:
        assert train.labels is not None
        labels = (train.labels, train.labels if train.text_labels is None else train.text_labels)
        images = _in_blocks(nets["net"].images, train.images)[train.image_of_pair]
        embeddings = (images, _in_blocks(nets["net"].texts, train.captions))
        centers, present = class_means(embeddings, labels)
        if self.params.exact_barycenter:
            share = draws.uniform(state["key"], torch.tensor(epoch, device=images.device), (len(centers),))
            centers = barycenters(starting_points(embeddings, labels, share), centers)
        soft = [neighbour_labels(z, y, self.params.neighbours) for z, y in zip(embeddings, labels, strict=True)]
        subsets = refine(soft, labels)
        agreement = _over_both(mean_over_labels(s, y) for s, y in zip(soft, labels, strict=True)) / 2
        facts = {f"{name}_share": float(mask.double().mean()) for name, mask in subsets.items()}
        facts["tied_votes_share"] = float(torch.stack([has_tied_vote(s) for s in soft]).double().mean())
        facts["empty_classes"] = float((~present).sum())
        changes = {"centers": centers, "present": present.to(state["present"].dtype), "agreement": agreement}
        return Partition(subsets, changes, {"net": agreement}, facts | {"alpha": self.alpha})

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        items = batch[update]
        assert items.labels is not None
        assert items.text_labels is not None
        embeddings = nets["net"].images(items.images), nets["net"].texts(items.texts)
        labels = items.labels, items.text_labels
        log_p = [log_class_probability(z, state["centers"], state["present"]) for z in embeddings]
        terms = self.label_term(update, log_p, labels)
        margins = margin_loss(*embeddings, self.params.margin, items.valid, self.params.with_diagonal)
        parts = {update: self.params.label_weight * items.mean(terms), "margin": self.alpha * items.mean(margins)}
        return StepOutput(parts, state["agreement"][items.index], self.label_term("pure", log_p, labels))

    def label_term(self, subset: str, log_p: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        """Term of 3.5 for every item, ``[B]``; ``log_p`` and ``labels`` ``[B, K]`` of each modality."""
        if subset == "noisy":
            pseudo = pseudo_label(log_p)
            return _over_both((pseudo - log.exp()).abs().sum(1) for log in log_p)
        weighs = subset == "hard" and self.params.weighs_hard
        confidence = fused_probability(log_p).detach() if weighs else 1.0
        return _over_both(-mean_over_labels(confidence * log, y) for log, y in zip(log_p, labels, strict=True))


def class_means(embeddings: Sequence[Tensor], labels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean over both modalities of all embeddings given with a class (3.1).

    Args:
        embeddings: ``[N, D]`` of each modality.
        labels: ``[N, K]`` of 0 and 1 of each modality.

    Returns:
        ``[K, D]``, not of unit length, 0 for a class without items; ``[K]`` bool, whether a class has any.
    """
    counts = _over_both(y.sum(0) for y in labels)
    sums = _over_both(y.mT @ z for z, y in zip(embeddings, labels, strict=True))
    return sums / counts.clamp(min=1)[:, None], counts > 0


def starting_points(embeddings: Sequence[Tensor], labels: Sequence[Tensor], share: Tensor) -> Tensor:
    """One embedding of every class, ``[K, D]``: that after ``share [K]`` in [0, 1) of its images, then texts (3.1)."""
    members = torch.cat([y > 0 for y in labels])
    number = (share.double() * members.sum(0)).long()
    row = (members.cumsum(0) > number).int().argmax(0)  # the first where so many members lie behind
    return torch.cat(list(embeddings))[row]


def barycenters(starts: Tensor, means: Tensor) -> Tensor:
    """``H <- (H + mean) / 2`` up to its first step of length at most 0.01, in closed form, ``[K, D]`` (3.1)."""
    offsets = starts - means
    halvings = (offsets.norm(dim=1, keepdim=True) / LAST_STEP).log2().ceil().clamp(min=1)
    return means + offsets / 2**halvings


def neighbour_labels(embeddings: Tensor, labels: Tensor, k: int) -> Tensor:
    """``s_i``, mean label of the k nearest other items, ``[N, K]`` (3.2).

    Args:
        embeddings: ``[N, D]`` unit rows, compared by inner product in blocks of rows.
        labels: ``[N, K]``.
        k: number of neighbours; all others where there are fewer.

    Raises:
        MethodError: a single item.
    """
    n = len(embeddings)
    if n < 2:
        raise MethodError(f"nirnl asks the neighbours of an item but there are {n} items; give at least two")
    found = []
    for start in range(0, n, BLOCK):
        rows = torch.arange(start, min(start + BLOCK, n), device=embeddings.device)
        similarity = embeddings[rows] @ embeddings.mT
        similarity[rows - start, rows] = -torch.inf
        found.append(labels[similarity.topk(min(k, n - 1), dim=1).indices].mean(1))
    return torch.cat(found)


def refine(soft: Sequence[Tensor], labels: Sequence[Tensor]) -> dict[str, Tensor]:
    """``pure``, ``hard`` and ``noisy``, ``[N]`` bool (3.2), from soft and given labels ``[N, K]`` of each modality."""
    first, second = (y.gather(1, s.argmax(1, keepdim=True))[:, 0] > 0 for s, y in zip(soft, labels, strict=True))
    return {"pure": first & second, "hard": first ^ second, "noisy": ~(first | second)}


def has_tied_vote(soft: Tensor) -> Tensor:
    """Whether several classes have the most votes, ``[N]`` bool; the first of them counts."""
    return (soft == soft.amax(1, keepdim=True)).sum(1) > 1


def log_class_probability(embeddings: Tensor, centers: Tensor, present: Tensor) -> Tensor:
    """``log softmax(z A^T)``, ``[B, K]`` (3.3), hugely negative for classes that are not ``present [K]``."""
    logits = embeddings @ centers.mT
    return torch.where(present > 0, logits, torch.finfo(logits.dtype).min / 4).log_softmax(1)


def fused_probability(log_p: Sequence[Tensor]) -> Tensor:
    """``P = 1 - (1 - p^1)(1 - p^2)``, ``[B, K]`` (3.3)."""
    first, second = (log.exp() for log in log_p)
    return 1 - (1 - first) * (1 - second)


def pseudo_label(log_p: Sequence[Tensor]) -> Tensor:
    """``t``, one-hot of the likeliest class, ``[B, K]``, without gradient (3.5)."""
    fused = fused_probability(log_p).detach()
    return (torch.arange(fused.shape[1], device=fused.device) == fused.argmax(1, keepdim=True)).to(fused.dtype)


def margin_loss(
    images: Tensor, texts: Tensor, margin: float, valid: Tensor | None = None, with_diagonal: bool = True
) -> Tensor:
    """``mean_j [z_i.z_j - z_i.z_i + M]_+`` of every item in both directions, ``[B]`` (3.4).

    Args:
        images, texts: ``[B, D]`` unit rows.
        margin: M.
        valid: ``[B]`` bool or None; the others neither have a loss nor are compared with.
        with_diagonal: the mean includes j = i, which is the constant M.
    """
    similarity = images @ texts.mT
    own = similarity.diagonal()[:, None]
    compared = torch.ones_like(similarity, dtype=torch.bool)
    if valid is not None:
        compared = compared & valid
    if not with_diagonal:
        compared = compared & ~torch.eye(len(images), dtype=torch.bool, device=images.device)
    violations = (similarity - own + margin).clamp(min=0) + (similarity.mT - own + margin).clamp(min=0)
    losses = torch.where(compared, violations, 0.0).sum(1) / compared.sum(1).clamp(min=1)
    return losses if valid is None else torch.where(valid, losses, 0.0)


def _in_blocks(embed: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    return torch.cat([embed(block) for block in features.split(BLOCK)])


def _over_both(modalities: Iterable[Tensor]) -> Tensor:
    first, second = modalities
    return first + second
