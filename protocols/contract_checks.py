"""The contract, checked: what any registered method must satisfy, on small synthetic data, in about a minute.

``run_benchmark.py check METHOD`` prints these checks for a stranger's method; the test suite runs them over the whole registry.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..datasets.types import OracleView
from ..methods import registry
from ..methods.contract import DirectMethod, GradientMethod, Method
from ..results.record import CellKey, RunRecord
from ..results.store import RecordStore
from . import engine
from .protocol import (
    BackboneChoice,
    BudgetChoice,
    DatasetChoice,
    Evaluation,
    Grants,
    LabelEvaluation,
    MetaGrant,
    NoiseChoice,
    Numerics,
    OptimizerChoice,
    Protocol,
    Selection,
)
from .tasks import ShardData, Task

RATES, SEEDS, EPOCHS, N_CLASSES = (0.0, 0.5), (0, 1), 4, 7


@dataclass(frozen=True)
class CheckResult:
    """One check: its name, whether it holds, and what was found."""

    name: str
    ok: bool
    detail: str = ""


def small_protocol(**changes: Any) -> Protocol:
    """The protocol of the checks: 120 synthetic images with two captions each in a shared space, 4 epochs."""
    protocol = Protocol(
        name="contract",
        version=1,
        description="Small synthetic data for the contract checks.",
        dataset=DatasetChoice(
            name="synthetic",
            options={
                "n_train": 120,
                "n_val": 40,
                "n_test": 60,
                "captions_per_image": 2,
                "image_dim": 16,
                "text_dim": 16,
                "zero_shot": 0.5,
            },
        ),
        noise=NoiseChoice(model="nested-mismatch", rates=RATES),
        seeds=SEEDS,
        backbone=BackboneChoice(kind="mlp", hidden=32, dim=16, normalise_inputs=False),
        budget=BudgetChoice(epochs=EPOCHS, batch_size=32, optimizer=OptimizerChoice(learning_rate=0.01)),
        numerics=Numerics(width=8),
        grants=Grants(clean_meta_set=MetaGrant(share=0.1), noise_rate=True),
    )
    return protocol.model_copy(update=changes)


def small_label_protocol(**changes: Any) -> Protocol:
    """The same for label-based retrieval: 240 synthetic items of seven classes, codes of 16 bits."""
    options = {
        "n_train": 240,
        "n_val": 40,
        "n_test": 60,
        "image_dim": 16,
        "text_dim": 16,
        "n_classes": N_CLASSES,
        "class_spread": 2.0,
    }
    protocol = Protocol(
        name="contract",
        version=1,
        task="label-hashing",
        description="Small synthetic data for the contract checks.",
        dataset=DatasetChoice(name="synthetic", options=options),
        noise=NoiseChoice(model="nested-symmetric", rates=RATES),
        seeds=SEEDS,
        bits=(16,),
        backbone=BackboneChoice(kind="hashing", hidden=32, dim=16, normalise_inputs=False),
        budget=BudgetChoice(epochs=EPOCHS, batch_size=32, optimizer=OptimizerChoice(rule="adam", learning_rate=0.01)),
        selection=Selection(metric="mean_map"),
        evaluation=Evaluation(labels=LabelEvaluation()),
        numerics=Numerics(width=8),
        grants=Grants(clean_meta_set=MetaGrant(share=0.1), noise_rate=True),
    )
    return protocol.model_copy(update=changes)


def protocol_for(method: type[Method]) -> Protocol:
    """The small protocol of the method's task."""
    return small_protocol() if method.task == "pair-retrieval" else small_label_protocol()


def cells_of(
    protocol: Protocol, method: str, variant: str, rates: Sequence[float], seeds: Sequence[int]
) -> list[CellKey]:
    """Cells of one method on a protocol, rate by rate."""
    common: dict[str, Any] = {
        "task": protocol.task,
        "protocol": protocol.name,
        "version": protocol.version,
        "dataset": protocol.dataset.name,
    }
    common |= {"noise": protocol.noise.model, "method": method, "variant": variant}
    common |= {"backbone": protocol.backbone.label, "track": protocol.track}
    if protocol.bits and registry.get(method).cls.binary:
        common["bits"] = protocol.bits[0]
    return [CellKey(**common, rate=rate, seed=seed) for rate in rates for seed in seeds]


@dataclass
class Trial:
    """Runs shards of one method and keeps what comes out."""

    method: str
    variant: str
    protocol: Protocol
    device: str = "cpu"

    def run(self, cells: Sequence[CellKey], **options: Any) -> dict[str, RunRecord]:
        """Records by cell id."""
        with tempfile.TemporaryDirectory() as folder:
            store = RecordStore(Path(folder) / "runs")
            settings: dict[str, Any] = {
                "data_root": None, "device": self.device, "checkpoint_dir": Path(folder) / "checkpoints", "checkpoint_every": 1e9,
                "command": "check", "on_event": lambda event: None, "stop": lambda: False,
            }  # fmt: skip
            engine.run_shard(cells, self.protocol, store, **(settings | options))
            return {record.cell_id: record for record in store.scan() if isinstance(record, RunRecord)}

    @property
    def cells(self) -> list[CellKey]:
        return cells_of(self.protocol, self.method, self.variant, RATES, SEEDS)


def with_shuffled_oracle(protocol: Protocol, data_root: Path | None, device: torch.device) -> Task:
    """The task with the same data and wrong flags behind the firewall."""
    task = engine.TASKS[protocol.task](protocol, data_root, device)
    prepare = task.prepare

    def shuffled(cells: Sequence[CellKey]) -> ShardData:
        data = prepare(cells)
        flipped = [OracleView(None if o.is_noisy is None else ~o.is_noisy) for o in data.oracles]
        return dataclasses.replace(data, oracles=flipped)

    task.prepare = shuffled  # type: ignore[method-assign]
    return task


class Poisoned(engine.ShardTraining):
    """A shard whose first run starts with a parameter that is not a number."""

    def _resume(self) -> int:
        for params in self.driver.params.values():
            for value in params.values():
                value[0] = torch.nan
        return super()._resume()


def check_method(name: str, variant: str | None = None, device: str = "cpu") -> list[CheckResult]:
    """Run every check on one method; ``device``: ``cpu`` or ``cuda``.

    Raises:
        MethodError: unknown method.
    """
    cls = registry.get(name).cls
    trial = Trial(name, variant or next(iter(cls.variants)), protocol_for(cls), device)
    results = [_constructs(cls), _documents(cls)]
    reference = trial.run(trial.cells)
    broken = [record for record in reference.values() if record.status != "done"]
    if broken:
        first = broken[0]
        applicable = first.status == "not_applicable"
        return [*results, CheckResult("runs", applicable, f"{first.status}: {first.reason}")]
    results.append(CheckResult("runs", True, f"{len(reference)} cells, {EPOCHS} epochs"))
    checks: list[Callable[[Trial, type[Method], dict[str, RunRecord]], CheckResult]] = [
        _repeats, _independent_of_neighbours, _global_generators_untouched, _learns, _firewall,
    ]  # fmt: skip
    if issubclass(cls, GradientMethod):
        checks += [_resumes, _non_finite_neighbour]
    return results + [check(trial, cls, reference) for check in checks]


def _constructs(cls: type[Method]) -> CheckResult:
    """Every variant constructs from a spec alone and is frozen."""
    bad = [name for name, params in cls.variants.items() if not dataclasses.is_dataclass(params) or _can_change(params)]
    return CheckResult("variants are frozen dataclasses", not bad, ", ".join(bad))


def _can_change(params: Any) -> bool:
    return not type(params).__dataclass_params__.frozen


def _documents(cls: type[Method]) -> CheckResult:
    missing = [field for field in ("label", "reference") if not getattr(cls, field, "")]
    if not cls.__doc__:
        missing.append("docstring")
    return CheckResult("label, reference, docstring", not missing, ", ".join(f"no {field}" for field in missing))


def _same(name: str, one: dict[str, RunRecord], other: dict[str, RunRecord]) -> CheckResult:
    differing = [key for key in one if key in other and one[key].outcome_digest != other[key].outcome_digest]
    compared = len(set(one) & set(other))
    return CheckResult(name, compared > 0 and not differing, f"{compared} cells compared, {len(differing)} differ")


def _repeats(trial: Trial, cls: type[Method], reference: dict[str, RunRecord]) -> CheckResult:
    return _same("same cell twice, same bytes", reference, trial.run(trial.cells))


def _independent_of_neighbours(trial: Trial, cls: type[Method], reference: dict[str, RunRecord]) -> CheckResult:
    cells = trial.cells
    strangers = cells_of(trial.protocol, trial.method, trial.variant, (0.3,), range(5, 23))
    other: dict[str, RunRecord] = {}
    # The wide one, because kernels take numbers in blocks of up to 16 or 32.
    for shard in ([cells[-1]], [cells[2], cells[0]], [cells[1], *strangers[:2]], [cells[0], *strangers, cells[-1]]):
        other |= trial.run(shard)
    return _same(
        "same bytes in every slot, alone and beside others",
        reference,
        {k: v for k, v in other.items() if k in reference},
    )


def _legacy_words() -> np.ndarray:
    """State of numpy's global generator."""
    return np.array(np.random.get_state(legacy=False)["state"]["key"])  # noqa: NPY002


def _global_generators_untouched(trial: Trial, cls: type[Method], reference: dict[str, RunRecord]) -> CheckResult:
    before = torch.random.get_rng_state(), _legacy_words()
    trial.run(trial.cells[:2])
    after = torch.random.get_rng_state(), _legacy_words()
    return CheckResult(
        "global generators untouched", bool(torch.equal(before[0], after[0]) and (before[1] == after[1]).all())
    )


def _learns(trial: Trial, cls: type[Method], reference: dict[str, RunRecord]) -> CheckResult:
    clean = [r.outcome.selected.full.headline for r in reference.values() if r.cell.rate == 0 and r.outcome]
    what, chance, factor = "rSum", 2 * 100 * (1 + 5 + 10) / 60, 1.5
    if cls.task == "label-hashing":
        what, chance, factor = "mean MAP", _chance_of_labels(n_items=60), 1.2
    return CheckResult(
        "learns on clean data", min(clean) > factor * chance, f"{what} {min(clean):.1f}, chance about {chance:.1f}"
    )


def _chance_of_labels(n_items: int) -> float:
    """Expected AP in percent of a random order (protocol-noisy-labels.md section 5) where every class has its share of the items."""
    share = (n_items / N_CLASSES - 1) / (n_items - 1)
    harmonic = sum(1 / rank for rank in range(1, n_items + 1))
    return 100 * (share + (1 - share) * harmonic / n_items)


def _firewall(trial: Trial, cls: type[Method], reference: dict[str, RunRecord]) -> CheckResult:
    name = "wrong oracle flags change nothing that was learnt"
    if "oracle" in cls.flags:
        return CheckResult(name, True, "declared to be behind the firewall")
    other = trial.run(trial.cells, make_task=with_shuffled_oracle)
    differing = [key for key, record in reference.items() if _learnt(record) != _learnt(other[key])]
    return CheckResult(name, not differing, f"{len(reference)} cells compared, {len(differing)} differ")


def _learnt(record: RunRecord) -> Any:
    assert record.outcome is not None
    return record.outcome.model_dump(exclude={"signals", "noise"}, mode="json")


def _resumes(trial: Trial, cls: type[Method], reference: dict[str, RunRecord]) -> CheckResult:
    with tempfile.TemporaryDirectory() as folder:
        asked = iter([False, True])
        options = {"checkpoint_dir": Path(folder), "checkpoint_every": 0.0}
        try:
            trial.run(trial.cells, **options, stop=lambda: next(asked, False))
            return CheckResult("2 + 2 epochs = 4 epochs", False, "the run did not stop when asked")
        except engine.Interrupted:
            resumed = trial.run(trial.cells, **options)
    if not all(record.circumstances.resumed_at == (2,) for record in resumed.values()):
        return CheckResult("2 + 2 epochs = 4 epochs", False, "the checkpoint was not used")
    return _same("2 + 2 epochs = 4 epochs", reference, resumed)


def _non_finite_neighbour(trial: Trial, cls: type[Method], reference: dict[str, RunRecord]) -> CheckResult:
    records = trial.run(trial.cells, make_training=Poisoned)
    poisoned = records.pop(trial.cells[0].cell_id)
    if poisoned.status != "failed":
        return CheckResult("a non-finite run harms no neighbour", False, f"the poisoned run is {poisoned.status}")
    return replace(
        _same("a non-finite run harms no neighbour", reference, records), name="a non-finite run harms no neighbour"
    )


__all__ = [
    "CheckResult",
    "DirectMethod",
    "Trial",
    "cells_of",
    "check_method",
    "protocol_for",
    "small_label_protocol",
    "small_protocol",
]
