"""How the training steps of a shard are carried out: the interface that the engine drives, and the choice of a driver.

``batched`` (:mod:`.batched`) stacks the runs' parameters on a leading axis and maps the method's single-run code over them; features lie
as tables on the device. A ``streaming`` driver (a loader that decodes images and tokenises, autocast, one run at a time) for end-to-end
backbones will implement the same interface; asking for one today is an error that says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..datasets.types import MetaView, TrainView
from ..methods.contract import BoundNetwork, GradientMethod, Run, Update
from .batches import PassPlan


class ContractError(RuntimeError):
    """A method broke a rule of the contract; the message names the method, the hook and the rule."""


@dataclass(frozen=True)
class StepLog:
    """What one update leaves for the logs: named losses ``[runs]``, and per-pair weight and loss ``[runs, B]`` where given."""

    losses: Mapping[str, Tensor]
    weight: Tensor | None
    sample_loss: Tensor | None


@dataclass(frozen=True)
class Tables:
    """Features shared by all runs of a shard, and what each run is given with them.

    Attributes:
        given: what noise may have touched, by its name in :class:`TrainView`, each with a leading axis of runs: ``image_of_pair
            [runs, n_pairs]``; ``labels`` and, where noise treats the modalities apart, ``text_labels [runs, n_pairs, n_classes]``.
        meta: the verified pairs where the protocol grants them.
    """

    images: Tensor
    captions: Tensor
    given: Mapping[str, Tensor]
    meta: MetaView | None = None

    @property
    def n_runs(self) -> int:
        return len(self.given["image_of_pair"])

    @property
    def n_pairs(self) -> int:
        return len(self.captions)

    def of_run(self, run: int) -> TrainView:
        """What the method of one run may see."""
        return self.view({name: values[run] for name, values in self.given.items()})

    def view(self, given: Mapping[str, Tensor]) -> TrainView:
        """The tables with what one run is given, without the axis of runs."""
        return TrainView(self.images, self.captions, **given)


class Driver(ABC):
    """Carries out the steps of several runs of one method; runs are told apart by their slot ``0..n_runs-1``."""

    @abstractmethod
    def networks_of(self, run: int) -> Mapping[str, BoundNetwork]:
        """The networks of one run at its current parameters, without gradient."""

    @abstractmethod
    def start_states(self, runs: Sequence[Run]) -> None:
        """Ask the method for the initial state of every run."""

    @abstractmethod
    def state_of(self, run: int) -> dict[str, Any]:
        """The declared state of one run."""

    @abstractmethod
    def replace_state(self, run: int, changes: Mapping[str, Any]) -> None:
        """Write parts of the state of one run (what ``partition`` returned)."""

    @abstractmethod
    def signals(self, orders: Sequence[np.ndarray], epoch: int, batch_size: int) -> list[dict[str, Tensor]]:
        """The method's per-pair signals ``[n_pairs]`` of every run, each in its own shuffled order."""

    @abstractmethod
    def step(self, update: Update, plan: PassPlan, iteration: int, factors: Mapping[str, Sequence[float]]) -> StepLog:
        """One update of all active runs; ``factors`` are the schedules' factors per network and run."""

    @abstractmethod
    def reinitialise(self, network: str, run: int, module: torch.nn.Module) -> None:
        """Start a network of one run and its optimiser again, from a fresh module."""

    @abstractmethod
    def tensors(self) -> dict[str, Any]:
        """Everything that lives from epoch to epoch, as (nested dictionaries of) tensors, for a checkpoint."""

    @abstractmethod
    def load(self, tensors: Mapping[str, Any]) -> None:
        """Put back what :meth:`tensors` gave."""


def check_streaming(method: GradientMethod, spec_kind: str) -> None:
    """Refuse backbones that need the streaming driver.

    Raises:
        ContractError: always for the kinds that read images or words instead of feature tables.
    """
    if spec_kind not in ("residual_adapter", "projection", "mlp", "hashing"):
        name = type(method).__name__
        raise ContractError(
            f"{name}: backbone {spec_kind!r} needs the streaming driver, which this version does not have"
        )
