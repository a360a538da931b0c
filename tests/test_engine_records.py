"""What the engine gives to methods and puts into records: grants, firewall, selection rules, clocks, real noise."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from engine_trials import digests, trial
from nocobench.datasets.types import OracleView, TrainView
from nocobench.methods.clip import Clip
from nocobench.methods.contract import (
    Batch,
    Networks,
    Partition,
    Pass,
    Reinit,
    Run,
    State,
    StepOutput,
    Update,
)
from nocobench.methods.ncr import Ncr
from nocobench.methods.registry import register
from nocobench.protocols import engine
from nocobench.protocols.contract_checks import EPOCHS, cells_of, small_protocol
from nocobench.protocols.protocol import Grants, NoiseChoice, Selection
from nocobench.protocols.tasks import PairData, PairRetrieval, PairScores, ShardData
from nocobench.results.record import CellKey
from torch import Tensor, nn

# --- grants


@pytest.mark.parametrize("method", ["msian", "clip_plus_meta"])
def test_without_its_grant_a_method_does_not_apply(method: str) -> None:
    this = trial(method, small_protocol(grants=Grants()))
    found = this.run(this.cells[:2])
    assert {(r.status, r.reason) for r in found.values()} == {
        ("not_applicable", "the protocol does not grant clean-meta-set")
    }
    assert {r.outcome for r in found.values()} == {None}


SEEN: dict[str, Any] = {}


class Curious(Clip):
    """Looks at everything that the run offers."""

    def state(self, train: TrainView, nets: Networks, run: Run) -> State:
        SEEN.update(meta=run.meta, rate=run.noise_rate, run=run, train=train, spec=self.spec)
        return {}


class Granted(Curious):
    needs = frozenset({"clean-meta-set", "noise-rate"})


register(name="curious")(Curious)
register(name="granted")(Granted)


def test_what_is_granted_must_also_be_asked_for() -> None:
    """Verified pairs and the rate reach those methods only whose class asks for them, so that tables can mark them."""
    for method, asked in (("curious", False), ("granted", True)):
        this = trial(method)
        (record, _) = this.run(this.cells[2:]).values()
        assert record.outcome is not None
        assert (SEEN["meta"] is not None, SEEN["rate"]) == (asked, 0.5 if asked else None)
        assert record.outcome.grants == (("clean-meta-set", "noise-rate") if asked else ())
    images = SEEN["meta"].images
    assert len(images) == SEEN["spec"].n_meta_images == 12
    shared = (images[:, None] == SEEN["train"].images[None]).all(-1)
    assert not shared.any(), "verified pairs are no training pairs"


# --- firewall


class Sentinel(PairRetrieval):
    """Counts who touches the oracle."""

    def prepare(self, cells: Sequence[CellKey]) -> PairData:
        data = super().prepare(cells)
        SEEN["oracles"] = data.oracles
        return data


def reachable(thing: Any, found: dict[int, Any], depth: int = 0) -> None:
    """Everything that can be reached from an object by attributes, items and elements, tensors included."""
    if id(thing) in found or depth > 8:
        return
    found[id(thing)] = thing
    if isinstance(thing, Mapping):
        inside: list[Any] = [*thing.keys(), *thing.values()]
    elif isinstance(thing, list | tuple | set | frozenset):
        inside = list(thing)
    elif isinstance(thing, nn.Module):
        inside = [*thing.__dict__.values()]
    elif hasattr(thing, "__dict__") and not isinstance(thing, type | Tensor):
        inside = list(vars(thing).values())
    else:
        return
    for part in inside:
        reachable(part, found, depth + 1)


class Nosy(Ncr):
    """NCR that keeps what every hook is given, for the test to search."""

    def state(self, train: TrainView, nets: Networks, run: Run) -> State:
        SEEN["state"] = (self, train, dict(nets), run)
        return super().state(train, nets, run)

    def partition(
        self, nets: Networks, train: TrainView, signals: Mapping[str, Tensor], state: State, epoch: int
    ) -> Partition:
        SEEN["partition"] = (dict(nets), train, signals, state)
        return super().partition(nets, train, signals, state, epoch)

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        SEEN["loss"] = (dict(nets), dict(batch), state)
        return super().loss(nets, batch, state, update)


register(name="nosy")(Nosy)


def test_nothing_behind_the_firewall_can_be_reached_from_a_method() -> None:
    this = trial("nosy")
    digests(this.run(this.cells[2:], make_task=Sentinel))
    flags = {id(oracle.is_noisy) for oracle in SEEN["oracles"]}
    for hook in ("state", "partition", "loss"):
        found: dict[int, Any] = {}
        reachable(SEEN[hook], found)
        assert len(found) > 20, "the search finds something"
        assert not flags & set(found), hook
        assert (
            not any(isinstance(thing, OracleView | ShardData | CellKey) for thing in found.values()) or hook == "state"
        )


def test_the_oracle_method_alone_sees_the_clean_subset() -> None:
    """``oracle-clean`` is a subset for methods behind the firewall; others get an error, not the subset."""

    class Cheating(Clip):
        def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
            return [Pass({"oracle-clean": 16}, (Update("train"),))]

        def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
            return super().loss(nets, {"all": batch["oracle-clean"]}, state, update)

    register(name="cheating")(Cheating)
    this = trial("cheating")
    found = this.run(this.cells[2:])
    assert {(record.status, record.reason) for record in found.values()} == {("failed", "KeyError: 'oracle-clean'")}
    allowed = trial("oracle_clean").run(trial("oracle_clean").cells[2:])
    for record in allowed.values():
        assert record.outcome is not None
        # 216 captions of 108 images, half of them clean: 3 batches of 32 and one of 12.
        assert record.outcome.gradient_steps == 4 * EPOCHS


# --- selection


class Scripted(PairRetrieval):
    """Scores that a test prescribes, epoch by epoch and run by run: (validation, noisy validation, test)."""

    script: list[tuple[float, float | None, float]] = []
    calls: dict[int, int]

    def score(self, encoder: Any, data: PairData, run: int) -> PairScores:
        real = super().score(encoder, data, run)
        self.calls = getattr(self, "calls", {})
        epoch = self.calls.get(run, 0)
        self.calls[run] = epoch + 1
        val, noisy, test = self.script[epoch]
        return PairScores(
            val=real.val.model_copy(update={"rsum": val, "mean_r1": -val}),
            noisy_val=None if noisy is None else real.val.model_copy(update={"rsum": noisy, "mean_r1": -noisy}),
            test_full=real.test_full.model_copy(update={"rsum": test}),
            test_folds=None,
            ranks=real.ranks,
        )


# Validation, validation with noise, test; every rule has an epoch of its own.
#          epoch:     0              1                2               3               4
SCRIPT = [(99.0, 99.0, 99.0), (20.0, 5.0, 50.0), (30.0, 7.0, 2.0), (10.0, 9.0, 1.0), (30.0, 8.0, 4.0)]


@pytest.mark.parametrize(
    ("selection", "epoch"),
    [
        (Selection(split="val"), 2),  # the first of two equals; before training does not count
        (Selection(split="noisy-val"), 3),
        (Selection(split="last"), 4),
        (Selection(metric="mean_r1"), 3),  # the script turns the sign
    ],
    ids=["val", "noisy-val", "last", "mean_r1"],
)
def test_the_rule_selects_and_the_test_set_never_does(selection: Selection, epoch: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(Scripted, "script", SCRIPT)
    this = trial("clip", small_protocol(selection=selection))
    for record in this.run(this.cells[2:], make_task=Scripted).values():
        outcome = record.outcome
        assert outcome is not None
        assert outcome.selected.epoch == epoch
        assert outcome.selected.full.rsum == SCRIPT[epoch][2]
        assert (outcome.last.epoch, outcome.last.full.rsum) == (4, 4.0)
        assert (outcome.best_on_test.epoch, outcome.best_on_test.full.rsum) == (1, 50.0)
        noisy = outcome.selected_on_noisy_val
        by_noisy = 1 if selection.metric == "mean_r1" else 3
        assert (noisy is None) == (epoch == by_noisy)
        assert noisy is None or noisy.epoch == by_noisy
        assert [entry.val_rsum for entry in outcome.history] == [99, 20, 30, 10, 30]
        assert [entry.noisy_val_rsum for entry in outcome.history] == [99, 5, 7, 9, 8]
        assert [entry.epoch for entry in outcome.history] == [0, 1, 2, 3, 4]


def test_without_training_the_start_is_selected() -> None:
    protocol = small_protocol()
    protocol = protocol.model_copy(update={"budget": protocol.budget.model_copy(update={"epochs": 0})})
    this = trial("clip", protocol)
    for record in this.run(this.cells[:2]).values():
        assert record.outcome is not None
        assert record.outcome.selected.epoch == record.outcome.last.epoch == 0
        assert record.outcome.gradient_steps == 0


# --- records


def test_an_epoch_counts_its_steps_and_losses() -> None:
    """216 training pairs (12 of 120 images are set aside) in batches of 32: 6 steps per epoch, the last 24 pairs are dropped."""
    this = trial("clip")
    for record in this.run(this.cells).values():
        outcome = record.outcome
        assert outcome is not None
        assert outcome.gradient_steps == 6 * EPOCHS
        assert {s.visited_fraction for s in outcome.signals} == {192 / 216}
        assert outcome.history[0].losses == {}
        assert all(math.isfinite(entry.losses["contrastive"]) for entry in outcome.history[1:])
        assert outcome.parameters == 2 * (16 * 32 + 32 + 32 * 16 + 16) + 1
        assert outcome.noise.realised == outcome.noise.nominal == record.cell.rate
        assert outcome.networks_at_test == 1
        assert outcome.single_network is None


def test_two_networks_are_also_scored_one_by_one() -> None:
    this = trial("ncr")
    for record in this.run(this.cells[2:]).values():
        outcome = record.outcome
        assert outcome is not None
        assert outcome.networks_at_test == 2
        assert outcome.single_network is not None
        assert outcome.single_network.epoch == outcome.selected.epoch
        assert outcome.single_network.full != outcome.selected.full


def test_a_direct_method_gives_each_cell_its_own_record_and_clock() -> None:
    """Closed forms come one after another; one that fails costs no other, and no cell pays for those before it."""
    this = trial("cca")
    events: list[dict[str, Any]] = []
    found = this.run(this.cells, on_event=events.append)
    assert [event["event"] for event in events] == ["cell_done"] * 4
    for record in found.values():
        assert record.outcome is not None
        assert [entry.epoch for entry in record.outcome.history] == [0]
        assert (record.outcome.gradient_steps, record.outcome.signals) == (0, ())
        assert (record.circumstances.width, set(record.circumstances.seconds)) == (1, {"train", "evaluate"})
    cell = this.cells[3]
    assert digests(this.run([cell]))[cell.cell_id] == found[cell.cell_id].outcome_digest


@dataclass
class Ticking:
    """A clock that advances by one second per look."""

    now: float = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def test_clocks_of_direct_methods_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.time, "perf_counter", Ticking())
    this = trial("cca")
    found = this.run(this.cells)
    assert {tuple(sorted(r.circumstances.seconds.items())) for r in found.values()} == {
        (("evaluate", 1.0), ("train", 1.0))
    }


def test_a_closed_form_that_fails_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from nocobench.methods.cca import Cca

    fit = Cca.fit

    def moody(self: Cca, train: TrainView, run: Run) -> Any:
        if run.cell.seed == 0:  # type: ignore[attr-defined]
            raise ValueError("singular")
        return fit(self, train, run)

    monkeypatch.setattr(Cca, "fit", moody)
    this = trial("cca")
    found = this.run(this.cells)
    assert [found[cell.cell_id].status for cell in this.cells] == ["failed", "done"] * 2
    assert found[this.cells[0].cell_id].reason == "ValueError: singular"


# --- real noise


@pytest.mark.parametrize("method", ["clip", "ncr", "npc", "cca", "msian"])
def test_real_noise_runs_and_claims_nothing_about_it(method: str) -> None:
    """No rate, no oracle: no AUC, no histogram of clean and noisy pairs, no noisy validation split."""
    protocol = small_protocol(noise=NoiseChoice(model="none", rates=None))
    this = trial(method, protocol)
    cells = [
        cell.model_copy(update={"rate": None}) for cell in cells_of(protocol, method, this.variant, (0.0,), (0, 1))
    ]
    sidecars: list[set[str]] = []

    class Watched(engine.ShardTraining):
        def _write_records(self) -> None:
            sidecars.extend(set(m.histograms.arrays()) | set(self._similarities(s)) for s, m in enumerate(self.memory))
            super()._write_records()

    for record in this.run(cells, make_training=Watched).values():
        outcome = record.outcome
        assert outcome is not None, record.reason
        assert (outcome.noise.nominal, outcome.noise.realised) == (None, None)
        assert all(math.isnan(s.auc) and math.isnan(s.mean_noisy) for s in outcome.signals)
        assert all(entry.noisy_val_rsum is None for entry in outcome.history)
        assert outcome.selected_on_noisy_val is None
        assert "NaN" in json.dumps([s.auc for s in outcome.signals]) or not outcome.signals
    assert sidecars == ([] if method == "cca" else [set(), set()])
