"""``cmmq``: Mutual Quantization for Cross-Modal Search with Noisy Labels (specs/cmmq.md), a reconstruction: there is no official code."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..datasets.types import TrainView
from .contract import Batch, Budget, GradientMethod, Networks, Partition, Pass, Reinit, Run, State, StepOutput, Update
from .hashing_towers import hashing_towers
from .label_losses import label_cross_entropy
from .nrch import given_labels, normalised
from .optim import Optimizer, Schedule
from .registry import MethodError, register

SMALL = 1e-6  # keeps the probability of a bit away from 0 and 1; cmmq.md 3.3


@register
class Cmmq(GradientMethod):
    """Both modalities are pulled to fixed binary class proxies, and only items of small joint loss count.

    With codes ``u, v = tanh(.)`` without unit norm, and proxies ``P [K, bits]`` of signs (3.1)::

        l_PC(f_i) = -(1/|Y_i|) sum_(k in Y_i) log softmax_k( cos(f_i, P_k) / t )                      (3.2)
        l_MQ,i    = mean_k [KL(p^u_ik || p^v_ik) + KL(p^v_ik || p^u_ik)],   p = (1 + f) / 2           (3.3)
        l_i       = (1 - lambda) (l_PC(u_i) + l_PC(v_i)) + lambda l_MQ,i                              (3.4)

    Of each batch the ``ceil(R(t) B)`` smallest count, with weight 1: ``R(t) = 1 - rho min(t / T_k, 1)`` in epoch ``t = 0, 1, ...``, where
    rho is the known noise rate. Items whose image or text has no label take no part.

    The full text of the paper was not available: the abstract gives the idea, the equations are this suite's reading, and variants are the
    other readings that the specification leaves open. With label noise the pair is right, so that both modalities may agree on a wrong
    label; that is why clean probabilities of both parts are logged by themselves, ``pull`` (l_PC) and ``mutual`` (l_MQ), one minus the loss
    scaled to [0, 1] over the training set.
    """

    @dataclass(frozen=True)
    class Params:
        temperature: float = 0.3  # t of the softmax over proxies; suite's choice, cmmq.md 3.2
        mutual: float = 0.5  # lambda; suite's choice, cmmq.md 3.4; 0 is the paper's ablation
        ramp_share: float = 0.1  # T_k as a share of all epochs; suite's choice: 10 of 100, cmmq.md 3.4 and 4
        scope: Literal["batch", "epoch"] = "batch"  # among which items the smallest are kept; uncertain, cmmq.md 3.4
        pull: Literal["softmax", "centroid", "bce"] = "softmax"  # form of l_PC; uncertain, cmmq.md 3.1 and 3.2
        mutual_on: Literal["bits", "proxies"] = "bits"  # distributions that l_MQ compares; uncertain, cmmq.md 3.3

    label = "CMMQ (reconstruction; no official code)"
    reference = (
        "E. Yang, D. Yao, T. Liu, C. Deng, Mutual Quantization for Cross-Modal Search with Noisy Labels, CVPR 2022"
    )
    spec_page = "cmmq.md"
    task = "label-hashing"
    flags = frozenset({"reconstruction"})
    needs = frozenset({"noise-rate"})
    variants = {
        "paper": Params(),
        "no-mutual": Params(mutual=0.0),
        "select-epoch": Params(scope="epoch"),
        "mq-on-proxies": Params(mutual_on="proxies"),
        "centroid": Params(pull="centroid"),
        "pc-bce": Params(pull="bce"),
    }
    recipe = Budget(
        epochs=100,
        batch_size=128,
        optimizer=Optimizer("adam", 1e-4, (0.9, 0.999), 1e-8, decay=1e-5, decay_on="all", schedule=Schedule("cosine")),
    )

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        return {"net": hashing_towers(self.spec, unit=False)}

    def state(self, train: TrainView, nets: Networks, run: Run) -> State:
        """Proxies, what decides a bit on which an item's proxies are equally divided, the known rate, R(t), and who is kept (``epoch``)."""
        if run.noise_rate is None:
            raise MethodError(
                "cmmq selects by the noise rate, which this run does not tell; grant noise_rate in the protocol"
            )
        proxies = class_proxies(self.spec.n_classes, self.spec.bits, run.generator("proxies"))
        ties = run.generator("ties").integers(0, 2, self.spec.bits) * 2.0 - 1
        ones = train.images.new_ones(train.n_pairs)
        # In float32 a share of 0.6 could keep one item more than 60 %.
        rate = torch.tensor(run.noise_rate, dtype=torch.float64, device=ones.device)
        return {
            "proxies": torch.as_tensor(proxies).to(ones),
            "ties": torch.as_tensor(ties).to(ones),
            "rate": rate,
            "share": torch.ones_like(rate),
            "kept": ones,
        }

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        return [Pass({"all": self.spec.batch_size}, (Update("train"),), last_batch="keep")]

    def observes(self, epoch: int) -> bool:
        return True

    def signals(self, nets: Networks, batch: Batch, state: State, epoch: int) -> Mapping[str, Tensor]:
        """Both parts of the loss, and who has labels."""
        pull, mutual = self.parts(nets["net"].images(batch.images), nets["net"].texts(batch.texts), batch, state)
        return {"pull": pull, "mutual": mutual, "labelled": labelled(batch)}

    def partition(
        self, nets: Networks, train: TrainView, signals: Mapping[str, Tensor], state: State, epoch: int
    ) -> Partition:
        """The share R(t) of this epoch, which items it keeps (scope ``epoch``), and both detectors for the log."""
        rate, takes_part = float(state["rate"]), signals["labelled"]
        share = torch.full_like(state["share"], kept_share(rate, epoch, self.ramp))
        losses = self.joint(signals["pull"], signals["mutual"])
        kept = smallest(losses, share, takes_part).to(state["kept"].dtype)
        probability = {name: torch.where(takes_part, 1 - normalised(signals[name]), 0.0) for name in ("pull", "mutual")}
        facts = {"kept_share": float(share), "known_rate": rate}
        return Partition(state={"share": share, "kept": kept}, clean_probability=probability, facts=facts)

    @property
    def ramp(self) -> int:
        """T_k in epochs, at least 1."""
        return max(1, round(self.params.ramp_share * self.spec.epochs))

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        items = batch["all"]
        pull, mutual = self.parts(nets["net"].images(items.images), nets["net"].texts(items.texts), items, state)
        losses = self.joint(pull, mutual)
        takes_part = labelled(items) if items.valid is None else labelled(items) & items.valid
        if self.params.scope == "batch":
            kept = smallest(losses.detach(), state["share"], takes_part)
        else:
            kept = (state["kept"][items.index] > 0) & takes_part
        mean = torch.where(kept, losses, 0.0).sum() / kept.sum().clamp(min=1)
        return StepOutput({"joint": mean}, kept.to(losses.dtype), losses)

    def joint(self, pull: Tensor, mutual: Tensor) -> Tensor:
        """``l_i`` of 3.4, ``[B]``."""
        return (1 - self.params.mutual) * pull + self.params.mutual * mutual

    def parts(self, u: Tensor, v: Tensor, items: Batch, state: State) -> tuple[Tensor, Tensor]:
        """``l_PC,i`` (both modalities) and ``l_MQ,i``, each ``[B]``."""
        of_image, of_text = given_labels(items)
        pull = self.pull(u, of_image, state) + self.pull(v, of_text, state)
        if self.params.mutual_on == "bits":
            return pull, mutual_quantisation(u, v)
        p, q = (proxy_similarity(f, state["proxies"]) / self.params.temperature for f in (u, v))
        return pull, symmetric_divergence(p.log_softmax(1), q.log_softmax(1))

    def pull(self, codes: Tensor, labels: Tensor, state: State) -> Tensor:
        """``l_PC`` of one modality in the chosen form, ``[B]``; 0 without labels (3.2)."""
        proxies, t = state["proxies"], self.params.temperature
        if self.params.pull == "softmax":
            return label_cross_entropy(proxy_similarity(codes, proxies) / t, labels)
        centers = merged_proxies(labels, proxies, state["ties"])
        if self.params.pull == "centroid":
            losses = centroid_cross_entropy(codes, centers, proxies, labels, t)
        else:
            losses = bitwise_cross_entropy(codes, centers)
        return torch.where(labels.any(1), losses, 0.0)


def labelled(items: Batch) -> Tensor:
    """Whether image and text of an item have a label, ``[B]`` bool."""
    of_image, of_text = given_labels(items)
    return of_image.any(1) & of_text.any(1)


def class_proxies(n_classes: int, bits: int, random: np.random.Generator) -> np.ndarray:
    """One code per class, ``[K, bits]`` of -1 and +1 (3.1).

    Rows of the Hadamard matrix and its negative without the constant ones, where there are enough of them; then nothing is random.
    Otherwise fair coins, drawn again until the mean distance of two rows is within 5 % of half the bits (or within half a bit: short
    codes have no closer distance).
    """
    rows = hadamard_rows(bits)
    if n_classes <= len(rows):
        return rows[:n_classes]
    while True:
        drawn = random.integers(0, 2, (n_classes, bits)) * 2.0 - 1
        if n_classes < 2 or abs(mean_distance(drawn) - bits / 2) <= max(0.05 * bits / 2, 0.5):
            return drawn


def hadamard_rows(bits: int) -> np.ndarray:
    """``[2 bits - 2, bits]``: rows of Sylvester's matrix, then of its negative, without the constant ones; none for other lengths."""
    matrix: np.ndarray = np.ones((1, 1))
    while len(matrix) < bits:
        matrix = np.kron([[1.0, 1.0], [1.0, -1.0]], matrix)
    return np.concatenate([matrix[1:], -matrix[1:]]) if len(matrix) == bits else np.empty((0, bits))


def mean_distance(codes: np.ndarray) -> float:
    """Mean Hamming distance of two rows."""
    pairs = np.triu_indices(len(codes), 1)
    return float((codes.shape[1] - codes @ codes.T)[pairs].mean() / 2)


def proxy_similarity(codes: Tensor, proxies: Tensor) -> Tensor:
    """Cosine of codes ``[B, bits]`` and proxies, ``[B, K]`` (3.2)."""
    return F.normalize(codes, dim=1) @ proxies.mT / math.sqrt(proxies.shape[1])


def merged_proxies(labels: Tensor, proxies: Tensor, ties: Tensor) -> Tensor:
    """Bit-wise majority of an item's proxies, ``[B, bits]``; ``ties [bits]`` decides where they are equally divided (3.1, ``centroid``)."""
    votes = labels @ proxies
    return torch.where(votes == 0, ties, votes.sign())


def centroid_cross_entropy(
    codes: Tensor, centers: Tensor, proxies: Tensor, labels: Tensor, temperature: float
) -> Tensor:
    """The item's merged proxy against those of the classes that it is not given with, ``[B]``; for one label that is 3.2 itself."""
    own = (F.normalize(codes, dim=1) * centers).sum(1) / math.sqrt(codes.shape[1]) / temperature
    others = proxy_similarity(codes, proxies) / temperature
    others = others.masked_fill(labels > 0, torch.finfo(codes.dtype).min / 4)
    return torch.cat([own[:, None], others], 1).logsumexp(1) - own


def bitwise_cross_entropy(codes: Tensor, centers: Tensor) -> Tensor:
    """Binary cross-entropy between ``(1 + f) / 2`` and the bits of the merged proxy, mean over bits, ``[B]`` (3.2, ``bce``)."""
    return -((1 + codes * centers) / 2).clamp(min=SMALL).log().mean(1)


def mutual_quantisation(u: Tensor, v: Tensor) -> Tensor:
    """Symmetric KL divergence of the two modalities' bits, mean over bits, ``[B]`` (3.3, closed form)."""
    p, q = (((1 + f) / 2).clamp(SMALL, 1 - SMALL) for f in (u, v))
    return ((p - q) * (p.logit() - q.logit())).mean(1)


def symmetric_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``KL(p || q) + KL(q || p)`` of class posteriors, ``[B]`` (3.3, ``proxies``)."""
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(1)


def kept_share(rate: float, epoch: int, ramp: int) -> float:
    """``R(t) = 1 - rho min(t / T_k, 1)`` (3.4)."""
    return 1 - rate * min(epoch / ramp, 1.0)


def smallest(losses: Tensor, share: Tensor, takes_part: Tensor) -> Tensor:
    """The ``ceil(share n)`` smallest of the n losses that take part, ``[B]`` bool; ties by place (3.4).

    Args:
        losses: ``[B]`` without gradient.
        share: scalar float64.
        takes_part: ``[B]`` bool.
    """
    ranked = torch.where(takes_part, losses, torch.inf)
    place = ranked.argsort(stable=True).argsort(stable=True)
    # 1 - 0.4 is not quite 0.6; that must not keep one item more.
    return (place < (share * takes_part.sum() - 1e-6).ceil()) & takes_part
