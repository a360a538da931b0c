"""The task label-hashing from protocol to record: what is searched, with which codes, under which labels; and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nocobench.datasets.types import DataError
from nocobench.methods import registry
from nocobench.methods.contract import Encoder
from nocobench.protocols import grid
from nocobench.protocols.contract_checks import Trial, cells_of, small_label_protocol, small_protocol
from nocobench.protocols.label_hashing import LabelHashing
from nocobench.protocols.protocol import (
    DatasetChoice,
    Evaluation,
    LabelEvaluation,
    NoiseChoice,
    Protocol,
    ProtocolError,
    load_protocol,
    with_overrides,
)
from nocobench.results.record import LabelEpochEntry, LabelNoiseFacts, LabelScores
from torch import Tensor

CPU = torch.device("cpu")


def task(**changes: Any) -> LabelHashing:
    return LabelHashing(small_label_protocol(**changes), None, CPU)


def searched(**rules: Any) -> Evaluation:
    return Evaluation(labels=LabelEvaluation(**rules))


def cells(protocol: Protocol, method: str = "lc", rates: tuple[float, ...] = (0.5,)) -> list[Any]:
    return cells_of(protocol, method, next(iter(registry.get(method).cls.variants)), rates, (0,))


class Ramp(Encoder):
    """Codes that tell nothing but how they were asked for."""

    binary = True

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def images(self, features: Tensor) -> Tensor:
        self.seen.append(("images", len(features)))
        return features[:, :16] - features[:, :16].mean(1, keepdim=True)

    def texts(self, features: Tensor) -> Tensor:
        self.seen.append(("texts", len(features)))
        return features[:, :16] - features[:, :16].mean(1, keepdim=True)

    def learned_codes(self) -> tuple[Tensor, Tensor]:
        return torch.ones(216, 16), -torch.ones(216, 16)


# --- data and noise


def test_labels_are_noisy_in_training_only() -> None:
    this = task()
    data = this.prepare(cells(this.protocol, rates=(0.0, 0.5)))
    clean, noisy = data.tables.given["labels"]
    assert not data.oracles[0].is_noisy.any()
    assert data.oracles[1].is_noisy.float().mean() == 0.5
    assert torch.equal(data.oracles[1].is_noisy, (clean != noisy).any(1))
    assert data.noise[1].realised == 0.5
    assert isinstance(data.noise[1], LabelNoiseFacts)
    assert data.noise[1].still_true == 0
    assert torch.equal(data.val.labels.sum(1), torch.ones(40))
    assert "text_labels" not in data.tables.given
    assert data.noisy_val[0] is None
    assert (data.noisy_val[1] != data.val.labels).any(1).float().mean() == 0.5


def test_labels_of_each_modality_may_differ() -> None:
    this = task(noise=NoiseChoice(model="per-modality-symmetric", rates=(0.5,)))
    given = this.prepare(cells(this.protocol)).tables.given
    assert not torch.equal(given["labels"], given["text_labels"])


def test_reserved_items_are_in_no_training_table() -> None:
    this = task()
    data = this.prepare(cells(this.protocol))
    assert data.n_meta_images == 24
    assert len(data.tables.images) == 240 - 24
    assert not (data.tables.images[:, None, :] == data.tables.meta.images[None]).all(-1).any()


def test_data_without_labels_are_refused() -> None:
    this = task(dataset=DatasetChoice(name="synthetic", options={"captions_per_image": 2}))
    with pytest.raises(DataError, match="one text per image"):
        this.prepare(cells(this.protocol))


# --- what is searched


@pytest.mark.parametrize(
    ("rules", "last_asked"),
    [
        ({"database": "test"}, [("images", 60), ("texts", 60)]),
        ({"database": "train"}, [("images", 216), ("texts", 216)]),
        ({"database": "train", "codes": "learned"}, [("images", 60), ("texts", 60)]),
        ({"database": "train", "codes": "fused"}, [("images", 216), ("texts", 216)]),
    ],
)
def test_queries_search_what_the_protocol_names(rules: dict[str, str], last_asked: list[tuple[str, int]]) -> None:
    this = task(evaluation=searched(**rules))
    data = this.prepare(cells(this.protocol))
    encoder = Ramp()
    scores = this.score(encoder, data, 0)
    assert encoder.seen[-2:] == last_asked
    assert scores.test_full.i2t.queries + scores.test_full.i2t.without_relevant == 60
    assert len(scores.ranks["i2t_average_precision"]) == 60
    assert scores.ranks["i2t_cutoffs"][-1] == (60 if rules["database"] == "test" else 216)


def test_learned_codes_that_are_all_equal_are_one_tie() -> None:
    this = task(evaluation=searched(database="train", codes="learned"))
    scores = this.score(Ramp(), this.prepare(cells(this.protocol)), 0).test_full
    assert scores.i2t.lower < scores.i2t.map < scores.i2t.upper


def test_an_own_counterpart_is_relevant_in_the_square_case() -> None:
    this = task()

    class Perfect(Ramp):
        def images(self, features: Tensor) -> Tensor:
            return self._codes(len(features))

        texts = images

        def _codes(self, n: int) -> Tensor:
            generator = torch.Generator().manual_seed(n)
            return torch.randn(n, 16, generator=generator)

    scores = this.score(Perfect(), this.prepare(cells(this.protocol)), 0).test_full
    assert scores.i2t.precision_radius_2 is not None
    assert scores.i2t.precision_radius_2 > 90


def test_codes_that_are_not_finite_are_an_error() -> None:
    class Broken(Ramp):
        def images(self, features: Tensor) -> Tensor:
            return super().images(features) * torch.nan

    this = task()
    with pytest.raises(ValueError, match="not finite"):
        this.score(Broken(), this.prepare(cells(this.protocol)), 0)


def test_noisy_validation_uses_noisy_labels() -> None:
    this = task()
    data = this.prepare(cells(this.protocol))
    scores = this.score(Ramp(), data, 0)
    assert scores.noisy_val is not None
    same = replace(data, noisy_val=[data.val.labels])
    assert this.score(Ramp(), same, 0).noisy_val == scores.val


# --- records


@pytest.mark.parametrize("method", ["lc", "mrl"])
def test_a_record_holds_precisions_and_bits(method: str) -> None:
    protocol = small_label_protocol()
    trial = Trial(method, next(iter(registry.get(method).cls.variants)), protocol)
    record = next(iter(trial.run(trial.cells[:1]).values()))
    assert record.status == "done", record.reason
    outcome = record.outcome
    assert outcome is not None
    assert isinstance(outcome.selected.full, LabelScores)
    assert all(isinstance(entry, LabelEpochEntry) for entry in outcome.history)
    assert record.cell.bits == (None if method == "mrl" else 16)
    assert (outcome.selected.full.i2t.precision_radius_2 is None) == (method == "mrl")
    best = max(outcome.history[1:], key=lambda entry: entry.val_map)
    assert outcome.selected.epoch == best.epoch
    assert set(record.circumstances.sources) == {"method", "engine", "metrics", "noise"}


def test_learned_codes_are_asked_of_methods_that_have_them_only() -> None:
    protocol = small_label_protocol(evaluation=searched(database="train", codes="learned"))
    trial = Trial("lc", "paper", protocol)
    record = next(iter(trial.run(trial.cells[:1]).values()))
    assert record.status == "not_applicable"
    assert "learns hash functions only" in record.reason


def test_a_label_free_method_never_sees_labels() -> None:
    """The same bytes of what was learnt at every rate."""
    trial = Trial("lc", "paper", small_label_protocol())
    records = trial.run([cell for cell in trial.cells if cell.seed == 0])
    scores = {record.outcome.selected.model_dump_json() for record in records.values() if record.outcome}
    assert len(records) == 2
    assert len(scores) == 1


# --- grid and protocol


def test_bits_are_an_axis_of_codes_only() -> None:
    protocol = small_label_protocol(bits=(16, 32))
    found = grid.cells(protocol, {}, [("lc", "paper"), ("mrl", "released")], rates=[0.5], seeds=[0])
    assert [(cell.method, cell.bits) for cell in found] == [("lc", 16), ("lc", 32), ("mrl", None)]
    assert len({cell.cell_id for cell in found}) == 3
    assert len(grid.shards(found, width=20, workers=1)) == 3


def test_cells_without_bits_are_written_as_ever() -> None:
    cell = grid.cells(load_protocol("digits-pairs"), {}, [("clip", "paper")], [0.0], [0])[0]
    assert "bits" not in cell.model_dump()
    assert "bits" not in load_protocol("digits-pairs").model_dump(mode="json")


def test_methods_go_with_their_task() -> None:
    assert grid.parse_methods(["oracle_clean"], "label-hashing") == [("oracle_clean_labels", "paper")]
    assert grid.parse_methods(["oracle_clean"], "pair-retrieval") == [("oracle_clean", "paper")]
    with pytest.raises(ProtocolError, match="'npc' solves the task 'pair-retrieval', but this protocol"):
        grid.parse_methods(["npc"], "label-hashing")
    with pytest.raises(ProtocolError, match="'rshnl' solves the task 'label-hashing'"):
        grid.parse_methods(["rshnl"], "pair-retrieval")


def test_what_is_searched_can_be_overridden_and_is_marked() -> None:
    changed, marked = with_overrides(small_label_protocol(), database="train", database_codes="learned", bits=(32,))
    assert changed.bits == (32,)
    assert marked == {"database": "train", "database_codes": "learned"}
    with pytest.raises(ProtocolError, match="they go with 'database: train'"):
        with_overrides(small_label_protocol(), database_codes="learned")
    with pytest.raises(ProtocolError, match="has no bits to choose"):
        with_overrides(small_protocol(), bits=(16,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": ()}, "needs lengths of codes"),
        ({"task": "pair-retrieval"}, "has no lengths of codes"),
        ({"bits": (16, 16)}, "twice"),
        ({"bits": (0,)}, "1 to 4096 are possible"),
    ],
)
def test_parts_of_a_protocol_belong_to_its_task(change: dict[str, Any], message: str) -> None:
    content = small_label_protocol().model_dump() | change
    with pytest.raises(ValueError, match=message):
        Protocol.model_validate(content)


def test_every_method_of_the_task_is_listed_and_describes_itself() -> None:
    from nocobench.protocols import listing

    text = listing.methods([])
    for name in ("rshnl", "mgsh", "nrch", "mrl", "nirnl", "ucch", "hcch", "cmmq", "ce", "lc", "oracle_clean_labels"):
        assert f" {name} " in text
    assert "real-valued" in text
    assert "multilabel-flip" in listing.noise()


@pytest.mark.parametrize("name", ["wikipedia-labels", "digits-labels", "multi30k-concepts", "mirflickr-labels"])
def test_shipped_protocols_say_what_is_searched(name: str) -> None:
    rules = load_protocol(name).evaluation.labels
    assert rules is not None
    assert rules.codes == "hash-function"


def test_a_real_run_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import subprocess
    import sys

    root = Path(__file__).resolve().parent.parent
    words = [
        "--protocol", "digits-labels", "--methods", "rshnl", "mrl", "lc", "--noise", "0.4", "--bits", "16", "--seeds", "0", "--epochs", "2",
        "--quiet", "--results", str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(root / "run_benchmark.py"), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "noise 0.4, 16 bits" in done.stdout
    assert "noise 0.4, real-valued" in done.stdout
    assert "expected over random order of ties" in " ".join(done.stdout.split())
    arrays = np.load(next(tmp_path.glob("runs/**/rshnl@released-16bits/seed0.npz")), allow_pickle=False)
    assert {"i2t_average_precision", "t2i_precision", "i2t_cutoffs"} <= set(arrays.files)
