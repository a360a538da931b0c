"""The contract of a method: the developer guide of NoCoBench.

A method is one class in one file, registered with :func:`~nocobench.methods.registry.register` and written for ONE run, as
equations. It never sees a device, a seed, a rate, an epoch loop, a file or another run; the engine owns all of these and trains
many runs of the same method side by side in one batched model.

Two kinds exist. A :class:`DirectMethod` computes its solution itself (closed form). A :class:`GradientMethod` says

* which ``networks`` there are and how each is optimised (``optimizers``),
* what else lives from step to step (``state``),
* which subsets of the training pairs are drawn in an epoch and which networks they update (``passes``),
* optionally what to compute for every pair once per epoch (``signals``) and what follows from it (``partition``),
* and the ``loss`` of one batch.

Rules inside ``signals`` and ``loss``, because the engine maps them over runs with ``torch.func.vmap``: no ``.item()``, no ``if`` on a
tensor, no boolean-mask indexing (use ``torch.where`` and weights), no random call, no in-place write into an input. ``state`` and
``partition`` are called run by run and may do anything.

Everything random is passed in: :meth:`Run.generator` gives a generator that depends on the cell and a purpose.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..datasets.types import MetaView, TrainView
from .network import BoundNetwork, Network, Networks, Params
from .optim import Optimizer

State = Mapping[str, Any]


@dataclass(frozen=True)
class Backbone:
    """The trainable heads of a protocol (specs/clip.md section 5), the same for all its methods.

    Attributes:
        kind: ``residual_adapter`` (features share a space), ``projection`` or ``mlp``; ``hashing`` for label-based retrieval
            (hashing_towers.py).
        hidden: width of the hidden layers (``residual_adapter``: None = the input width).
        dim: output dimension (ignored by ``residual_adapter``); for ``hashing`` that of real-valued methods, codes have ``Spec.bits``.
        normalise_inputs: L2-normalise features first (CLIP features).
        initial_scale: s at the start; logits are ``s * cosine`` and ``logit_scale = log s`` is learnt.
    """

    kind: str = "projection"
    hidden: int | None = 1024
    dim: int = 512
    normalise_inputs: bool = True
    initial_scale: float = 1 / 0.07

    @property
    def label(self) -> str:
        if self.kind == "residual_adapter":
            return self.kind
        return f"{self.kind}-{self.hidden if self.kind == 'hashing' else self.dim}"


@dataclass(frozen=True)
class Budget:
    """What a run may spend: ``epochs`` over the training pairs in batches of ``batch_size`` pairs, and how it steps."""

    epochs: int
    batch_size: int
    optimizer: Optimizer


@dataclass(frozen=True)
class Spec:
    """Everything a method may know before it sees data: sizes, dimensions, backbone and budget. No data, no device.

    For label-based retrieval also ``n_classes`` (the width of label rows), whether items may have several (``multi_label``), and ``bits``,
    the length of the codes. ``dataset`` serves those few constants that their authors chose per data set.
    """

    n_pairs: int
    n_images: int
    image_dim: int
    text_dim: int
    shared_space: bool
    backbone: Backbone
    budget: Budget
    n_meta_images: int = 0
    grants: frozenset[str] = frozenset()
    n_classes: int = 0
    multi_label: bool = False
    bits: int = 0
    dataset: str = ""

    @property
    def epochs(self) -> int:
        return self.budget.epochs

    @property
    def batch_size(self) -> int:
        return min(self.budget.batch_size, self.n_pairs)


@dataclass(frozen=True)
class Difference:
    """One row of the table of differences between the paper and the released code."""

    what: str
    paper: str
    released: str
    spec: str


class Run(ABC):
    """What a method may ask of the run it is in, outside ``loss``. The engine implements it."""

    @abstractmethod
    def generator(self, purpose: str) -> np.random.Generator:
        """A generator of its own for this purpose; the same cell and purpose always give the same draws."""

    @property
    @abstractmethod
    def meta(self) -> MetaView | None:
        """The verified pairs of the grant ``clean-meta-set``, or None without it."""

    @property
    @abstractmethod
    def noise_rate(self) -> float | None:
        """The nominal noise rate; None without the grant ``noise-rate``."""


class Method(ABC):
    """What everybody may ask of any method.

    Class attributes:
        label: how tables print the method; reconstructions say so here.
        reference: authors, title, venue, code.
        spec_page: the page of the specification the equations cite.
        flags: any of ``control``, ``reconstruction``, ``oracle``, ``clean-meta-set``, ``own-generalisation``.
        needs: grants the method asks for (``clean-meta-set``, ``noise-rate``); a protocol that does not give one makes the cell
            ``not_applicable``.
        Params: frozen dataclass, one field per constant, with unit and origin in its comment.
        variants: instances of ``Params`` by name; the first is the default.
        differences: paper against released code, a part of the product.
        task: the task the method solves, ``pair-retrieval`` or ``label-hashing``.
        binary: for ``label-hashing``: embeddings become codes of ``Spec.bits`` signs; False for real-valued embeddings, which are compared
            by cosine and have no number of bits.
        learns_codes: for ``label-hashing``: the encoder has :meth:`Encoder.learned_codes`.
        counterparts: the method that stands for this one in other tasks, by task.
    """

    label: ClassVar[str]
    reference: ClassVar[str]
    spec_page: ClassVar[str] = ""
    flags: ClassVar[frozenset[str]] = frozenset()
    needs: ClassVar[frozenset[str]] = frozenset()
    Params: ClassVar[type]
    variants: ClassVar[Mapping[str, Any]]
    differences: ClassVar[Sequence[Difference]] = ()
    task: ClassVar[str] = "pair-retrieval"
    binary: ClassVar[bool] = True
    learns_codes: ClassVar[bool] = False
    counterparts: ClassVar[Mapping[str, str]] = {}

    def __init__(self, params: Any, spec: Spec) -> None:
        self.params = params
        self.spec = spec

    def needs_now(self) -> frozenset[str]:
        """The grants this variant asks for; override where variants differ."""
        return self.needs

    def applies_to(self, spec: Spec) -> str | None:
        """None, or the reason why the method cannot run here (becomes a ``not_applicable`` record)."""
        missing = sorted(self.needs_now() - spec.grants)
        return f"the protocol does not grant {', '.join(missing)}" if missing else None


class Encoder(ABC):
    """A finished model: features in, embeddings out, compared by inner product.

    In the task ``label-hashing`` the embeddings of a binary method are taken before the sign; the evaluator makes codes of them
    (:func:`codes`), so that also the sum of both modalities can be a code.

    Attributes:
        binary: whether codes are to be made of the embeddings.
    """

    binary: bool = False

    @abstractmethod
    def images(self, features: Tensor) -> Tensor:
        """``[n, image_dim] -> [n, dim]``."""

    @abstractmethod
    def texts(self, features: Tensor) -> Tensor:
        """``[n, text_dim] -> [n, dim]``."""

    def parameters(self) -> int:
        """Number of fitted numbers."""
        return 0

    def learned_codes(self) -> tuple[Tensor, Tensor] | None:
        """Codes ``[n_pairs, bits]`` of -1 and +1 that training itself found for the training pairs, image side and text side; None
        where a method learns hash functions only."""
        return None


def codes(embeddings: Tensor) -> Tensor:
    """Binary codes of -1 and +1, same shape and dtype; 0, which never occurs in practice, becomes +1."""
    return torch.where(embeddings >= 0, 1.0, -1.0).to(embeddings.dtype)


class DirectMethod(Method):
    """A method that computes its solution itself: closed forms, or no training at all."""

    @abstractmethod
    def fit(self, train: TrainView, run: Run) -> Encoder:
        """Return the fitted encoder; ``train`` holds the noisy assignment of one run."""


@dataclass(frozen=True)
class Batch:
    """Pairs of one draw.

    Attributes:
        index: ``[B]`` positions in the training set (in the meta set for the draw ``meta``), all different.
        images: ``[B, image_dim]``, the images the captions are given with.
        texts: ``[B, text_dim]``.
        image_id: ``[B]``, which image; equal ids are captions of the same image.
        labels: ``[B, n_classes]`` float 0/1, the labels that the pairs are given with; None in the task ``pair-retrieval``.
        text_labels: ``[B, n_classes]``, those of the texts; the same as ``labels`` unless the noise treats each modality by itself.
        valid: ``[B]`` bool, or None when all are; the last batch of a subset may be filled up with pairs that must not count.
        tables: the training tables behind the batch, for :meth:`at`.
    """

    index: Tensor
    images: Tensor
    texts: Tensor
    image_id: Tensor
    valid: Tensor | None = None
    tables: TrainView | None = field(default=None, repr=False)
    labels: Tensor | None = None
    text_labels: Tensor | None = None

    def at(self, index: Tensor) -> Batch:
        """The training pairs at other positions (memory banks): a batch of the same size."""
        if self.tables is None:
            raise ValueError("this batch has no tables behind it")
        return batch_from(self.tables, index, None)

    def mean(self, values: Tensor) -> Tensor:
        """Mean of ``[B]`` over the valid pairs."""
        if self.valid is None:
            return values.mean()
        return torch.where(self.valid, values, 0.0).sum() / self.valid.sum().clamp(min=1)

    def sum(self, values: Tensor) -> Tensor:
        """Sum of ``[B]`` over the valid pairs."""
        return values.sum() if self.valid is None else torch.where(self.valid, values, 0.0).sum()

    def write(self, vector: Tensor, values: Tensor) -> Tensor:
        """A copy of the per-pair ``vector [n_pairs]`` with ``values [B]`` at the batch's positions."""
        values = values.to(vector.dtype)
        if self.valid is not None:
            values = torch.where(self.valid, values, vector[self.index])
        return vector.scatter(0, self.index, values)


def batch_from(tables: TrainView, index: Tensor, valid: Tensor | None) -> Batch:
    """The pairs at ``index [B]`` of one run."""
    image_id = tables.image_of_pair[index]
    labels = None if tables.labels is None else tables.labels[index]
    text_labels = labels if tables.text_labels is None else tables.text_labels[index]
    return Batch(index, tables.images[image_id], tables.captions[index], image_id, valid, tables, labels, text_labels)


@dataclass(frozen=True)
class Update:
    """One optimiser step inside a pass.

    Attributes:
        name: given to ``loss`` as ``update``; what the step is for.
        train: the networks that step.
        on: the draw that decides whether a run takes part, and whose pairs ``weight`` belongs to (default: the first draw).
        every: take this step only in every ``every``-th iteration of the pass.
    """

    name: str
    train: tuple[str, ...] = ("net",)
    on: str | None = None
    every: int = 1


@dataclass(frozen=True)
class Pass:
    """One walk over a subset of the training pairs.

    Attributes:
        draws: batch size of every subset that is drawn from: ``all``, ``meta``, or a subset that ``partition`` named. The first decides
            the number of iterations; the others start again, reshuffled, when they are used up.
        updates: the steps of each iteration, in order; all see the same batches, and state written by one is read by the next.
        last_batch: ``drop`` an incomplete last batch, or ``keep`` it (its fill-up pairs are marked in ``Batch.valid``).
            A last batch of a single pair is always dropped.
    """

    draws: Mapping[str, int]
    updates: tuple[Update, ...]
    last_batch: str = "drop"


@dataclass(frozen=True)
class Reinit:
    """Start a network, and its optimiser, again from a fresh initialisation, at this place of an epoch."""

    network: str


@dataclass(frozen=True)
class StepOutput:
    """What ``loss`` returns.

    Attributes:
        loss: scalar, or named scalars that are summed; each is logged under its name.
        weight: ``[B]`` what each pair of the update's draw counted with, None where the method does not weigh.
        sample_loss: ``[B]`` the pair's own loss, for methods without weights and for analysis.
        state: the parts of the state that change, by name.
    """

    loss: Tensor | Mapping[str, Tensor]
    weight: Tensor | None = None
    sample_loss: Tensor | None = None
    state: State = field(default_factory=dict)


@dataclass(frozen=True)
class Partition:
    """What ``partition`` concludes at the start of an epoch, for one run.

    Attributes:
        subsets: boolean masks ``[n_pairs]`` by name, to be drawn from in ``passes``.
        state: the parts of the state that change.
        clean_probability: ``[n_pairs]`` in [0, 1] by network, the noise detector of this epoch, for the log.
        facts: numbers worth keeping in the record (an estimated noise rate, whether a guard fired).
        reinitialise: networks of this run that start again, with their optimisers, before the epoch.
    """

    subsets: Mapping[str, Tensor] = field(default_factory=dict)
    state: State = field(default_factory=dict)
    clean_probability: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)
    reinitialise: tuple[str, ...] = ()


class GradientMethod(Method):
    """A method that is trained by gradient steps; see the module docstring for what to write and which rules hold.

    Class attributes:
        tested: networks whose similarities are averaged at test time.
        weight_range: bounds of the logged weight; a value outside is an error, so that densities share an axis honestly.
        batched: False for backbones that cannot be mapped over runs (GRUs); they train one run at a time.
        recipe: the authors' own budget, used in the track ``author-recipe`` only.
    """

    tested: ClassVar[tuple[str, ...]] = ("net",)
    weight_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    batched: ClassVar[bool] = True
    recipe: ClassVar[Budget | None] = None

    def warmup_epochs(self, wanted: int, pretrained: int | None = None) -> int:
        """Epochs of plain training before the method itself, of which at least one is left; ``pretrained`` replaces ``wanted`` where
        training starts at the zero-shot similarity (backbone ``residual_adapter``)."""
        if pretrained is not None and self.spec.backbone.kind == "residual_adapter":
            wanted = pretrained
        return min(wanted, max(0, self.spec.epochs - 1))

    @abstractmethod
    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        """How to build each network, by name. Its initialisation depends on backbone, network name and seed only."""

    def optimizers(self) -> Mapping[str, Optimizer]:
        """Rule, schedule and clipping per network; default: the protocol's optimiser for all."""
        return dict.fromkeys(self.networks(), self.spec.budget.optimizer)

    def state(self, train: TrainView, nets: Networks, run: Run) -> State:
        """All else that lives from step to step (tensors, possibly in nested dictionaries); called once per run."""
        return {}

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        """What an epoch does, in order; default: one plain pass over all pairs."""
        return [Pass({"all": self.spec.batch_size}, (Update("train"),))]

    def observes(self, epoch: int) -> bool:
        """Whether ``signals`` are wanted at the start of this epoch."""
        return False

    def signals(self, nets: Networks, batch: Batch, state: State, epoch: int) -> Mapping[str, Tensor]:
        """Per-pair quantities ``[B]``, computed for all training pairs in shuffled batches without gradient."""
        return {}

    def partition(
        self, nets: Networks, train: TrainView, signals: Mapping[str, Tensor], state: State, epoch: int
    ) -> Partition:
        """What follows from the signals ``[n_pairs]`` of one run at the start of an epoch; called every epoch."""
        return Partition()

    @abstractmethod
    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        """The loss of one update. Only the update's own networks receive gradients."""


def plain_pass(batch_size: int, name: str = "train", network: str = "net") -> Pass:
    """The usual pass: all pairs, one network, one update."""
    return Pass({"all": batch_size}, (Update(name, (network,)),))


class TowersEncoder(Encoder):
    """The encoder of a trained :class:`GradientMethod`: embeddings of the tested networks side by side.

    Concatenating the unit embeddings of k networks and dividing by sqrt(k) makes the inner product the mean of their cosines.
    """

    def __init__(self, nets: Sequence[BoundNetwork], binary: bool = False) -> None:
        self.nets = nets
        self.binary = binary

    def images(self, features: Tensor) -> Tensor:
        return torch.cat([net.images(features) for net in self.nets], dim=-1) / len(self.nets) ** 0.5

    def texts(self, features: Tensor) -> Tensor:
        return torch.cat([net.texts(features) for net in self.nets], dim=-1) / len(self.nets) ** 0.5

    def parameters(self) -> int:
        return sum(value.numel() for net in self.nets for value in net.params.values())


def variant_names(method: type[Method]) -> Iterator[str]:
    """Names of a method's variants, the default first."""
    yield from method.variants


__all__ = [
    "Backbone", "Batch", "BoundNetwork", "Budget", "Difference", "DirectMethod", "Encoder", "GradientMethod", "Method", "Network",
    "Networks", "Params", "Partition", "Pass", "Reinit", "Run", "Spec", "State", "StepOutput", "TowersEncoder", "Update",
    "batch_from", "codes", "plain_pass", "replace", "variant_names",
]  # fmt: skip
