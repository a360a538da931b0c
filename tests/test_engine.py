"""The engine beyond the contract checks: widths and neighbours, failures of one run, broken rules, resuming."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from engine_trials import PROTOCOL, digests, trial
from nocobench.datasets.types import TrainView
from nocobench.methods.clip import Clip
from nocobench.methods.contract import (
    Backbone,
    Batch,
    Budget,
    Networks,
    Partition,
    Pass,
    Reinit,
    Spec,
    State,
    StepOutput,
    Update,
)
from nocobench.methods.optim import Optimizer
from nocobench.methods.registry import register
from nocobench.protocols import engine
from nocobench.protocols.contract_checks import EPOCHS, cells_of, small_protocol
from nocobench.protocols.protocol import BackboneChoice, BudgetChoice, Grants, OptimizerChoice
from nocobench.results.record import RunRecord
from nocobench.results.store import RecordStore
from torch import Tensor


@pytest.fixture(scope="module")
def reference() -> Callable[[str], dict[str, str]]:
    """Digests of the four cells of a method, trained in one shard; computed once."""
    known: dict[str, dict[str, str]] = {}

    def of(method: str) -> dict[str, str]:
        if method not in known:
            known[method] = digests(trial(method).run(trial(method).cells))
        return known[method]

    return of


# --- widths and neighbours


@pytest.mark.parametrize("method", ["clip", "ncr"])
@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_width_and_neighbours_change_nothing(
    method: str, width: int, reference: Callable[[str], dict[str, str]]
) -> None:
    """The last cell of the reference in the middle of strangers: other seeds, other rates (so other subset sizes), other widths."""
    this, cell = trial(method), trial(method).cells[-1]
    strangers = cells_of(PROTOCOL, method, cell.variant, (0.2, 0.7), (3, 4))[: width - 1]
    shard = [*strangers[: width // 2], cell, *strangers[width // 2 :]]
    found = this.run(shard)
    assert len(found) == width
    assert digests(found)[cell.cell_id] == reference(method)[cell.cell_id]
    assert found[cell.cell_id].circumstances.width == width
    assert found[cell.cell_id].circumstances.slot == width // 2


@pytest.mark.parametrize(
    ("batch_size", "kind", "hidden", "dim", "dtype", "allowed"),
    [
        (128, "mlp", 256, 128, "float32", True),
        (128, "mlp", 256, 128, "float64", False),
        (100, "mlp", 256, 128, "float32", False),
        (128, "mlp", 250, 128, "float32", False),
        (128, "projection", None, 100, "float32", False),
        (128, "residual_adapter", None, 1, "float32", True),  # dim is ignored there
    ],
)
def test_which_sizes_can_be_stacked(
    batch_size: int, kind: str, hidden: int | None, dim: int, dtype: str, allowed: bool
) -> None:
    backbone = Backbone(kind=kind, hidden=hidden, dim=dim)
    assert (
        engine.stackable(Spec(1000, 1000, 64, 64, True, backbone, Budget(1, batch_size, Optimizer())), dtype) is allowed
    )


@pytest.mark.parametrize("method", ["clip", "hana"])
def test_the_last_of_many_runs_has_the_bits_of_any_other(method: str) -> None:
    """Odd sizes, 19 runs: matrices that begin anywhere in memory are multiplied with other roundings, and tensors end in half a block."""
    odd = small_protocol(
        backbone=BackboneChoice(kind="mlp", hidden=19, dim=7, normalise_inputs=False),
        budget=BudgetChoice(epochs=6, batch_size=21, optimizer=OptimizerChoice(learning_rate=0.01)),
    )
    this = trial(method, odd)
    cell, strangers = this.cells[-1], cells_of(odd, method, this.variant, (0.2,), range(30, 48))
    narrow = digests(this.run([cell, strangers[0]]))[cell.cell_id]
    assert digests(this.run([*strangers, cell]))[cell.cell_id] == narrow


# --- one run fails


class BrokenLater(engine.ShardTraining):
    """The second run gets a parameter that is not a number after two epochs."""

    def _epoch(self, epoch: int) -> list[dict[str, float]]:
        if epoch == 2:
            first = next(iter(self.driver.params.values()))
            for value in first.values():
                value[1] = torch.inf
        return super()._epoch(epoch)


class BrokenAtTheEnd(engine.ShardTraining):
    """The second run's parameters are destroyed after the last step: no loss tells of it, the evaluation must."""

    def _evaluate(self, epoch: int, losses: list[dict[str, float]]) -> None:
        if epoch == EPOCHS:
            for params in self.driver.params.values():
                for value in params.values():
                    value[1] = torch.nan
        super()._evaluate(epoch, losses)


@pytest.mark.parametrize("method", ["clip", "ncr", "npc", "msian"])
def test_a_run_that_diverges_fails_alone(method: str, reference: Callable[[str], dict[str, str]]) -> None:
    this = trial(method)
    found = this.run(this.cells, make_training=BrokenLater)
    broken = found.pop(this.cells[1].cell_id)
    assert broken.status == "failed"
    assert "epoch 3" in broken.reason or "non-finite" in broken.reason
    assert broken.outcome is None
    assert digests(found) == {cell: digest for cell, digest in reference(method).items() if cell in found}
    assert len(found) == 3


def test_a_run_that_diverges_in_its_last_step_does_not_score(reference: Callable[[str], dict[str, str]]) -> None:
    this = trial("clip")
    found = this.run(this.cells, make_training=BrokenAtTheEnd)
    broken = found.pop(this.cells[1].cell_id)
    assert broken.status == "failed"
    assert broken.reason.startswith(f"evaluation after epoch {EPOCHS}: ")
    assert digests(found) == {cell: digest for cell, digest in reference("clip").items() if cell in found}


def test_a_lone_run_that_diverges_ends_early() -> None:
    seen: list[int] = []

    class Broken(engine.ShardTraining):
        def _epoch(self, epoch: int) -> list[dict[str, float]]:
            seen.append(epoch)
            for value in self.driver.params["net"].values():
                value[0] = torch.nan
            return super()._epoch(epoch)

    this = trial("clip")
    (record,) = this.run(this.cells[:1], make_training=Broken).values()
    assert (record.status, record.reason) == ("failed", "the loss became non-finite in epoch 1, iteration 1")
    assert seen == [0], "nothing is left to train"


class SplitsByNoise(Clip):
    """Draws from a subset of its own; ``partition`` fails for the runs that :data:`refused` names."""

    def partition(
        self, nets: Networks, train: TrainView, signals: Mapping[str, Tensor], state: State, epoch: int
    ) -> Partition:
        moved = int((train.image_of_pair != torch.arange(train.n_pairs) // 2).sum())
        if epoch == 1 and moved == 0:
            raise ValueError("no pair looks noisy")
        half = torch.arange(train.n_pairs) < 100
        return Partition({"half": half}, facts={"moved": moved})

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        return [Pass({"half": 16}, (Update("train"),), last_batch="keep")]

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        return super().loss(nets, {"all": batch["half"]}, state, update)


register(name="splits_by_noise")(SplitsByNoise)


def test_a_failing_partition_costs_its_own_run_only() -> None:
    """Two clean runs (rate 0) beside two noisy ones; the first two cannot be split."""
    protocol = small_protocol(grants=Grants())
    this = trial("splits_by_noise", protocol)
    found = this.run(this.cells)
    by_rate = {rate: [found[cell.cell_id] for cell in this.cells if cell.rate == rate] for rate in (0.0, 0.5)}
    assert {r.status for r in by_rate[0.0]} == {"failed"}
    assert {r.reason for r in by_rate[0.0]} == {"partition in epoch 2: no pair looks noisy"}
    alone = this.run([cell for cell in this.cells if cell.rate == 0.5])
    assert digests(alone) == digests({r.cell_id: r for r in by_rate[0.5]})
    (record, _) = by_rate[0.5]
    assert record.outcome is not None
    # 100 pairs in batches of 16: 6 whole ones and one of 4.
    assert record.outcome.gradient_steps == 7 * EPOCHS
    assert record.outcome.facts["moved"] == 120
    assert {s.excluded_fraction for s in record.outcome.signals} == {140 / 240}


class Greedy(Clip):
    """Says that weights lie in 0..1 and gives 2."""

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        out = super().loss(nets, batch, state, update)
        assert out.sample_loss is not None
        return dataclasses.replace(out, weight=torch.full_like(out.sample_loss, 2.0))


class Forgetful(Clip):
    """Changes a state that it never declared."""

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        return dataclasses.replace(super().loss(nets, batch, state, update), state={"memory": torch.zeros(())})


class Peeking(Clip):
    """Reads a tensor inside the loss."""

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        out = super().loss(nets, batch, state, update)
        assert out.sample_loss is not None
        return dataclasses.replace(out, weight=out.sample_loss * out.sample_loss.sum().item())


class Gambling(Clip):
    """Draws at random inside the loss."""

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        out = super().loss(nets, batch, state, update)
        assert out.sample_loss is not None
        return dataclasses.replace(out, weight=torch.rand_like(out.sample_loss))


BROKEN_RULES = {
    "greedy": (Greedy, r"Greedy: a weight of network 'net' lies outside weight_range \(0.0, 1.0\) in epoch 1"),
    "forgetful": (Forgetful, "Forgetful.loss changes state 'memory', which state.. never declared"),
    "peeking": (Peeking, "Peeking.loss .update 'train'. reads a tensor's value"),
    "gambling": (Gambling, "Gambling.loss .update 'train'. draws random numbers"),
}


@pytest.mark.parametrize("name", BROKEN_RULES)
def test_a_broken_rule_is_named(name: str) -> None:
    cls, message = BROKEN_RULES[name]
    register(name=name)(cls)
    this = trial(name)
    found = this.run(this.cells[:2])
    assert {record.status for record in found.values()} == {"failed"}
    for record in found.values():
        with pytest.raises(RuntimeError, match=message):
            raise RuntimeError(record.reason)
        assert "Traceback" in record.traceback


class Exploding(Clip):
    """Weights that are fine unless the run has diverged: then they are infinite."""

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        out = super().loss(nets, batch, state, update)
        assert out.sample_loss is not None
        weight = torch.where(out.sample_loss.isfinite(), 0.5, torch.inf)
        return dataclasses.replace(out, weight=weight)


register(name="exploding")(Exploding)


def test_weights_of_a_diverged_run_do_not_accuse_the_method() -> None:
    this = trial("exploding")
    found = this.run(this.cells, make_training=BrokenLater)
    assert [found[cell.cell_id].status for cell in this.cells] == ["done", "failed", "done", "done"]


# --- resuming

RESUME = """
import sys
from pathlib import Path
from nocobench.protocols import engine
from nocobench.protocols.contract_checks import Trial, small_protocol
from nocobench.results.store import RecordStore

folder, method, stop_after = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
trial = Trial(method, "paper", small_protocol())
epochs = []
try:
    engine.run_shard(
        trial.cells, trial.protocol, RecordStore(folder / "runs"), data_root=None, device="cpu", checkpoint_dir=folder,
        checkpoint_every=1e9, command="test", on_event=lambda event: epochs.append(event), stop=lambda: len(epochs) >= stop_after,
    )
except engine.Interrupted:
    sys.exit(130)
"""


def test_resumes_in_a_new_process(reference: Callable[[str], dict[str, str]], tmp_path: Path) -> None:
    """Stopped after the first epoch and after the last one, by two processes that know nothing of each other; a third one finishes."""
    codes = []
    for stop_after in (1, EPOCHS, 99):
        command = [sys.executable, "-c", RESUME, str(tmp_path), "ncr", str(stop_after)]
        codes.append(subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False).returncode)
    assert codes == [130, 130, 0]
    records = {r.cell_id: r for r in RecordStore(tmp_path / "runs").scan() if isinstance(r, RunRecord)}
    assert digests(records) == reference("ncr")
    assert {record.circumstances.resumed_at for record in records.values()} == {(1, 4)}
    assert not list(tmp_path.glob("shard-*"))


def test_a_run_that_has_failed_stays_failed_after_resuming(tmp_path: Path) -> None:
    this = trial("clip")
    asked = iter([False, False, True])
    options = {"checkpoint_dir": tmp_path, "checkpoint_every": 1e9}
    with pytest.raises(engine.Interrupted):
        this.run(this.cells[:2], make_training=BrokenLater, stop=lambda: next(asked), **options)
    found = this.run(this.cells[:2], **options)
    assert [found[cell.cell_id].status for cell in this.cells[:2]] == ["done", "failed"]
    assert "in epoch 3" in found[this.cells[1].cell_id].reason


def test_a_failed_partition_is_remembered_by_a_checkpoint(tmp_path: Path) -> None:
    """The partition would succeed in the epochs after the one it failed in."""
    this = trial("splits_by_noise", small_protocol(grants=Grants()))
    asked = iter([False, True])
    options = {"checkpoint_dir": tmp_path, "checkpoint_every": 1e9}
    with pytest.raises(engine.Interrupted):
        this.run(this.cells, stop=lambda: next(asked), **options)
    found = this.run(this.cells, **options)
    assert [found[cell.cell_id].status for cell in this.cells] == ["failed", "failed", "done", "done"]
    assert found[this.cells[0].cell_id].reason == "partition in epoch 2: no pair looks noisy"


@pytest.mark.parametrize("damage", [b"", b"no checkpoint", None])
def test_a_checkpoint_that_cannot_be_used_costs_time_only(
    damage: bytes | None, reference: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    """Empty, damaged, or of other sources."""
    this = trial("clip")
    options = {"checkpoint_dir": tmp_path, "checkpoint_every": 1e9}
    with pytest.raises(engine.Interrupted):
        this.run(this.cells, stop=lambda: True, **options)
    (path,) = tmp_path.glob("*.pt")
    if damage is None:
        torch.save(torch.load(path, weights_only=True) | {"identity": "other"}, path)
    else:
        path.write_bytes(damage)
    path.with_suffix(".1.tmp").write_bytes(b"left by a process that was killed while it wrote")
    found = this.run(this.cells, **options)
    assert digests(found) == reference("clip")
    assert {record.circumstances.resumed_at for record in found.values()} == {()}
    assert not list(tmp_path.iterdir())
