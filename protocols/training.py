"""The training of a shard: the only loop over epochs in the project, the same for every method.

See drivers.py for how steps are carried out and selection.py for which epoch counts.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..datasets.types import MetaView
from ..methods.contract import Encoder, GradientMethod, Pass, Reinit, Run, Spec, TowersEncoder
from ..methods.optim import Progress
from ..results.record import CellKey, SignalSummary
from . import streams
from .batched import BatchedDriver
from .batches import PassPlan, one_caption_per_image, plan_pass
from .checkpoint import CheckpointFile
from .drivers import ContractError
from .observe import Histograms, SignalLog, similarity_histograms, summarise
from .recording import Recorder
from .selection import Tracker
from .tasks import EpochScores, ShardData, Task


class Interrupted(Exception):
    """The run was asked to stop; a checkpoint has been written."""


@dataclass(frozen=True)
class CellRun(Run):
    """What a method may ask of its run."""

    cell: CellKey
    granted: frozenset[str]
    meta_view: MetaView | None

    def generator(self, purpose: str) -> np.random.Generator:
        return streams.generator(purpose, cell=self.cell.model_dump())

    @property
    def meta(self) -> MetaView | None:
        return self.meta_view if "clean-meta-set" in self.granted else None

    @property
    def noise_rate(self) -> float | None:
        return self.cell.rate if "noise-rate" in self.granted else None


@dataclass
class Memory:
    """What the engine remembers of one run besides the driver's tensors."""

    tracker: Tracker
    histograms: Histograms
    summaries: list[SignalSummary] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    restarts: int = 0
    failure: str = ""

    def payload(self) -> dict[str, Any]:
        """For a checkpoint: JSON-ready, without the ranks."""
        return {
            "tracker": self.tracker.payload(),
            "histograms": self.histograms.payload(),
            "summaries": [summary.model_dump() for summary in self.summaries],
            **{name: getattr(self, name) for name in ("facts", "steps", "restarts", "failure")},
        }

    def restore(self, payload: dict[str, Any], ranks: dict[str, np.ndarray]) -> None:
        """Put back what :meth:`payload` gave."""
        self.tracker.restore(payload["tracker"], ranks)
        self.histograms.restore(payload["histograms"])
        self.summaries = [SignalSummary.model_validate(summary) for summary in payload["summaries"]]
        for name in ("facts", "steps", "restarts", "failure"):
            setattr(self, name, payload[name])


class ShardTraining:
    """The training of all runs of one shard."""

    def __init__(
        self,
        method: GradientMethod,
        shard: Sequence[CellKey],
        task: Task,
        data: ShardData,
        recorder: Recorder,
        checkpoint: CheckpointFile,
        stop: Callable[[], bool],
    ) -> None:
        self.method, self.shard, self.task, self.data = method, shard, task, data
        self.recorder, self.checkpoint, self.stop = recorder, checkpoint, stop
        self.spec: Spec = method.spec
        self.device = data.tables.captions.device
        needs = method.needs_now()
        self.runs = [CellRun(cell, needs, data.tables.meta) for cell in shard]
        modules = {
            name: [self._fresh(name, build, cell) for cell in shard] for name, build in method.networks().items()
        }
        self.driver = BatchedDriver(method, modules, data.tables)
        self.log = SignalLog(len(shard), data.tables.n_pairs, self.device)
        self.memory = [Memory(Tracker(task.protocol.selection), Histograms(method.weight_range)) for _ in shard]
        self.subsets: list[dict[str, Tensor]] = [{} for _ in shard]
        self.bad_step = torch.full((len(shard),), -1, dtype=torch.int64, device=self.device)

    def _fresh(
        self, network: str, build: Callable[[], torch.nn.Module], cell: CellKey, again: int = 0
    ) -> torch.nn.Module:
        with streams.initialisation(
            "initialisation", backbone=cell.backbone, network=network, seed=cell.seed, again=again
        ):
            return build()

    @property
    def _makes_codes(self) -> bool:
        return self.method.task == "label-hashing" and self.method.binary

    @property
    def alive(self) -> list[int]:
        """Slots of the runs that are still finite."""
        return [slot for slot, memory in enumerate(self.memory) if not memory.failure]

    def run(self) -> None:
        """All epochs, then the records."""
        first = self._resume()
        if first == 0:
            self.driver.start_states(self.runs)
            self._evaluate(0, [{} for _ in self.shard])
        for epoch in range(first, self.spec.epochs):
            if not self.alive:
                break
            losses = self._epoch(epoch)
            self._check_finite(epoch)
            self._observe(epoch + 1)
            self._evaluate(epoch + 1, losses)
            self.recorder.event("epoch", epoch=epoch + 1, epochs=self.spec.epochs, cells=len(self.shard))
            if self.stop():
                self._save(epoch + 1)
                raise Interrupted
            if self.checkpoint.due() and epoch + 1 < self.spec.epochs:
                self._save(epoch + 1)
        self._write_records()
        self.checkpoint.remove()

    def _epoch(self, epoch: int) -> list[dict[str, float]]:
        with self.recorder.timed("train"):
            self.log.begin_epoch()
            self._partition(epoch)
            sums: dict[str, Tensor] = {}
            counts: dict[str, Tensor] = {}
            for number, this in enumerate(self.method.passes(epoch)):
                if isinstance(this, Reinit):
                    for slot in range(len(self.shard)):
                        self._reinitialise(this.network, slot)
                else:
                    self._walk(this, epoch, number, sums, counts)
            return self._means(sums, counts)

    def _partition(self, epoch: int) -> None:
        observes = self.method.observes(epoch)
        signals: list[dict[str, Tensor]] = [{} for _ in self.shard]
        if observes:
            orders = [self._order(slot, epoch, "signals", 0, 0, self.spec.n_pairs) for slot in range(len(self.shard))]
            signals = self.driver.signals(orders, epoch, self.spec.batch_size)
        for slot in self.alive:
            try:
                nets, train = self.driver.networks_of(slot), self.data.tables.of_run(slot)
                with torch.no_grad():
                    found = self.method.partition(nets, train, signals[slot], self.driver.state_of(slot), epoch)
            except ValueError as error:
                self._fail(slot, f"partition in epoch {epoch + 1}: {error}")
                continue
            self.subsets[slot] = {name: mask.detach() for name, mask in found.subsets.items()}
            self.driver.replace_state(slot, found.state)
            for network in found.reinitialise:
                self._reinitialise(network, slot)
            self.memory[slot].facts.update({name: float(value) for name, value in found.facts.items()})
            for network, values in found.clean_probability.items():
                self.log.write_all("clean_probability", network, slot, values)

    def _walk(self, this: Pass, epoch: int, number: int, sums: dict[str, Tensor], counts: dict[str, Tensor]) -> None:
        plan = plan_pass(this, self._masks(this), self._orders(epoch, number, this), self.device)
        for update in this.updates:
            on = update.on or next(iter(this.draws))
            if on != "meta":
                for network in update.train:
                    self.log.note_drawn(network, self._mask_tensor(on))
        for iteration in range(plan.length):
            for update in this.updates:
                if iteration % update.every == 0:
                    self._step(this, update, plan, iteration, epoch, sums, counts)

    def _step(
        self,
        this: Pass,
        update: Any,
        plan: PassPlan,
        iteration: int,
        epoch: int,
        sums: dict[str, Tensor],
        counts: dict[str, Tensor],
    ) -> None:
        on = update.on or next(iter(this.draws))
        draw = plan.draws[on]
        active = draw.active[iteration]
        if not active.any():
            return
        factors = {name: self._factors(name, plan, iteration, epoch) for name in self.driver.modules}
        out = self.driver.step(update, plan, iteration, factors)
        moving = torch.from_numpy(active).to(self.device)
        total = torch.zeros(len(self.shard), dtype=torch.float64, device=self.device)
        for name, value in out.losses.items():
            value = torch.where(moving, value.double(), 0.0)
            total = total + value
            sums[name] = sums.get(name, 0.0) + value
            counts[name] = counts.get(name, 0) + moving
        self._note_bad(total, epoch, iteration, plan.length)
        counted = moving[:, None] if draw.valid is None else draw.valid[iteration] & moving[:, None]
        index = draw.index[iteration]
        if on != "meta":
            for signal, values in (("weight", out.weight), ("loss", out.sample_loss)):
                if values is not None:
                    self.log.write(signal, update.train[0], index, values, counted.expand_as(index))
        for slot in np.flatnonzero(active):
            self.memory[slot].steps += 1

    def _note_bad(self, total: Tensor, epoch: int, iteration: int, length: int) -> None:
        here = epoch * 1_000_000 + iteration
        self.bad_step = torch.where((self.bad_step < 0) & ~total.isfinite(), here, self.bad_step)

    def _check_finite(self, epoch: int) -> None:
        for slot in self.alive:
            at = int(self.bad_step[slot])
            if at >= 0:
                self._fail(
                    slot, f"the loss became non-finite in epoch {at // 1_000_000 + 1}, iteration {at % 1_000_000 + 1}"
                )

    def _fail(self, slot: int, reason: str) -> None:
        self.memory[slot].failure = reason

    def _factors(self, network: str, plan: PassPlan, iteration: int, epoch: int) -> list[float]:
        schedule = self.driver.rules[network].schedule
        return [
            schedule.factor_at(Progress(epoch, self.spec.epochs, min(iteration, own - 1), int(own), self.spec.n_pairs))
            if own
            else 0.0
            for own in plan.iterations
        ]

    def _order(self, slot: int, epoch: int, part: str, draw: int, cycle: int, n: int) -> np.ndarray:
        cell = self.shard[slot]
        depends_on = {
            "dataset": cell.dataset,
            "seed": cell.seed,
            "epoch": epoch,
            "part": part,
            "draw": draw,
            "cycle": cycle,
        }
        return streams.permutation(n, "batch order", **depends_on)

    def _orders(self, epoch: int, number: int, this: Pass) -> list[Callable[[str, int, int], np.ndarray]]:
        meta = self.data.tables.meta

        def order(name: str, draw: int, cycle: int, slot: int) -> np.ndarray:
            if name != "meta":
                return self._order(slot, epoch, f"pass {number}", draw, cycle, self.spec.n_pairs)
            assert meta is not None
            return one_caption_per_image(
                meta.image_of_pair, self._order(slot, epoch, f"pass {number}", draw, cycle, meta.n_pairs)
            )

        return [functools.partial(order, slot=slot) for slot in range(len(self.shard))]

    def _masks(self, this: Pass) -> dict[str, list[np.ndarray]]:
        masks: dict[str, list[np.ndarray]] = {}
        for name in this.draws:
            if name == "all":
                masks[name] = [np.ones(self.spec.n_pairs, dtype=bool)] * len(self.shard)
            elif name == "meta":
                assert self.data.tables.meta is not None, "the grant is checked before training starts"
                masks[name] = [np.ones(self.data.tables.meta.n_pairs, dtype=bool)] * len(self.shard)
            else:
                masks[name] = [self._subset(slot, name).cpu().numpy() for slot in range(len(self.shard))]
        return masks

    def _subset(self, slot: int, name: str) -> Tensor:
        if self.memory[slot].failure:
            return torch.zeros(self.spec.n_pairs, dtype=torch.bool, device=self.device)
        if name == "oracle-clean" and "oracle" in self.method.flags:
            noisy = self.data.oracles[slot].is_noisy
            if noisy is None:
                raise ContractError("nobody knows which pairs are clean under real noise")
            return ~noisy
        return self.subsets[slot][name]

    def _mask_tensor(self, name: str) -> Tensor:
        if name == "all":
            return torch.ones((len(self.shard), self.spec.n_pairs), dtype=torch.bool, device=self.device)
        return torch.stack([self._subset(slot, name) for slot in range(len(self.shard))])

    def _reinitialise(self, network: str, slot: int) -> None:
        self.memory[slot].restarts += 1
        build = self.method.networks()[network]
        self.driver.reinitialise(
            network, slot, self._fresh(network, build, self.shard[slot], self.memory[slot].restarts)
        )

    def _means(self, sums: dict[str, Tensor], counts: dict[str, Tensor]) -> list[dict[str, float]]:
        table = {name: (sums[name] / counts[name]).tolist() for name in sorted(sums)}
        return [
            {name: values[slot] for name, values in table.items() if math.isfinite(values[slot])}
            for slot in range(len(self.shard))
        ]

    def _observe(self, epoch: int) -> None:
        low, high = self.method.weight_range
        for (signal, network), values in self.log.values.items():
            values = values[self.alive]  # a run that has failed may hold anything
            if signal == "weight" and bool(((values < low) | (values > high)).any()):
                name = type(self.method).__name__
                raise ContractError(
                    f"{name}: a weight of network {network!r} lies outside weight_range ({low}, {high}) in epoch {epoch}"
                )
        for slot in self.alive:
            memory, oracle = self.memory[slot], self.data.oracles[slot]
            memory.summaries += summarise(self.log, slot, epoch, oracle)
            memory.histograms.add(self.log, slot, epoch, oracle)

    def _encoder(self, slot: int, networks: Sequence[str]) -> Encoder:
        nets = self.driver.networks_of(slot)
        return TowersEncoder([nets[name] for name in networks], self._makes_codes)

    def _score(self, slot: int, networks: Sequence[str]) -> EpochScores:
        with torch.no_grad():
            return self.task.score(self._encoder(slot, networks), self.data, slot)

    def _evaluate(self, epoch: int, losses: list[dict[str, float]]) -> None:
        with self.recorder.timed("evaluate"):
            tested = self.method.tested
            for slot in self.alive:
                single = (lambda s=slot: self._score(s, tested[:1])) if len(tested) > 1 else None
                try:
                    self.memory[slot].tracker.add(epoch, self._score(slot, tested), losses[slot], single)
                except ValueError as error:
                    self._fail(slot, f"evaluation after epoch {epoch}: {error}")

    def _write_records(self) -> None:
        for slot, (cell, memory) in enumerate(zip(self.shard, self.memory, strict=True)):
            if memory.failure:
                self.recorder.failed([cell], memory.failure, "")
                continue
            self.recorder.done(
                cell,
                slot,
                len(self.shard),
                memory.tracker,
                self.data,
                self._encoder(slot, list(self.driver.modules)).parameters(),
                len(self.method.tested),
                memory.steps,
                summaries=memory.summaries,
                facts=memory.facts,
                arrays=memory.histograms.arrays() | self._similarities(slot),
                grants=tuple(sorted(self.method.needs_now())),
            )

    def _similarities(self, slot: int) -> dict[str, np.ndarray]:
        if not self.task.similarity_density():
            return {}
        encoder, train = self._encoder(slot, self.method.tested), self.data.tables.of_run(slot)
        with torch.no_grad():
            return similarity_histograms(encoder, train, self.data.oracles[slot])

    def _save(self, epoch: int) -> None:
        facts = {
            "epoch": epoch,
            "resumed_at": self.recorder.resumed_at,
            "seconds": self.recorder.seconds,
            "runs": [memory.payload() for memory in self.memory],
        }
        ranks = [
            {name: torch.from_numpy(_storable(array)) for name, array in memory.tracker.ranks.items()}
            for memory in self.memory
        ]
        self.checkpoint.save({"driver": self.driver.tensors(), "ranks": ranks, "bad_step": self.bad_step}, facts)

    def _resume(self) -> int:
        found = self.checkpoint.load(self.device)
        if found is None:
            return 0
        tensors, facts = found
        self.driver.load(tensors["driver"])
        self.bad_step = tensors["bad_step"]
        self.recorder.resume(facts["epoch"], facts["resumed_at"], facts["seconds"])
        for memory, kept, ranks in zip(self.memory, facts["runs"], tensors["ranks"], strict=True):
            memory.restore(kept, {name: _restored(value.cpu().numpy()) for name, value in ranks.items()})
        return int(facts["epoch"])


def _storable(array: np.ndarray) -> np.ndarray:
    """Counts as int64, because torch saves no uint32; other numbers as they are."""
    return array.astype(np.int64) if array.dtype == np.uint32 else array


def _restored(array: np.ndarray) -> np.ndarray:
    return array.astype(np.uint32) if array.dtype == np.int64 else array
