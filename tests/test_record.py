"""Records keep every bit of a number through JSON, and a cell's identity does not depend on the order of anything."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nocobench.protocols.commands import is_stale
from nocobench.protocols.source_parts import ROOT, method_files
from nocobench.results import record as record_module
from nocobench.results.record import CellKey, RunRecord, SignalSummary, canonical_json, digest_of, record_schema
from pydantic import ValidationError
from sample_records import make_cell, make_record

NAMES = st.text(min_size=1, max_size=12)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8))
OVERRIDES = st.dictionaries(NAMES, st.one_of(PLAIN, st.lists(PLAIN, max_size=3)), max_size=4)
CELLS = st.builds(
    make_cell, protocol=NAMES, dataset=NAMES, method=NAMES, variant=NAMES, seed=st.integers(0, 2**31), overrides=OVERRIDES,
    rate=st.one_of(st.none(), st.floats(0, 1)),
)  # fmt: skip


def through_json(record: RunRecord) -> RunRecord:
    return RunRecord.model_validate(json.loads(json.dumps(record.model_dump(mode="json"))))


@given(CELLS, st.floats(allow_nan=True, allow_infinity=True))
def test_round_trip_keeps_every_bit(cell: CellKey, rsum: float) -> None:
    record = make_record(rsum, **cell.model_dump())
    back = through_json(record)
    assert canonical_json(back.model_dump(mode="json")) == canonical_json(record.model_dump(mode="json"))
    assert back.cell.cell_id == record.cell_id
    assert np.array_equal(back.outcome.selected.full.rsum, rsum, equal_nan=True)


@given(CELLS, st.randoms(use_true_random=False))
def test_shuffled_keys_give_the_same_identity(cell: CellKey, shuffler: random.Random) -> None:
    def shuffled(value: object) -> object:
        if not isinstance(value, dict):
            return value
        keys = list(value)
        shuffler.shuffle(keys)
        return {key: shuffled(value[key]) for key in keys}

    assert CellKey.model_validate(shuffled(cell.model_dump())).cell_id == cell.cell_id


@pytest.mark.parametrize(
    ("part", "value"),
    [("seed", 1), ("rate", 0.4), ("rate", None), ("variant", "released"), ("overrides", {"epochs": 2}), ("version", 2)],
)
def test_every_part_of_a_cell_changes_its_identity(part: str, value: object) -> None:
    assert make_cell(**{part: value}).cell_id != make_cell().cell_id


def test_golden_identity() -> None:
    # Stored results are found under this hash; a change of it would orphan all of them.
    assert (
        make_cell().cell_id
        == digest_of(json.loads(canonical_json(make_cell().model_dump())))[:16]
        == "5b87bda46ce00888"
    )


def test_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="sed"):
        make_cell(sed=3)
    with pytest.raises(ValidationError, match="frozen"):
        make_cell().seed = 3  # type: ignore[misc]


def test_not_a_number_survives() -> None:
    nan = float("nan")
    summary = SignalSummary(
        epoch=1, signal="loss", network="net", auc=nan, mean_clean=nan, mean_noisy=1.0, visited_fraction=1.0, excluded_fraction=0.0
    )  # fmt: skip
    back = SignalSummary.model_validate(json.loads(json.dumps(summary.model_dump(mode="json"))))
    assert np.isnan(back.auc)
    assert back.mean_noisy == 1.0


def test_digest_sees_values_names_shapes_and_types() -> None:
    base = {"a": np.arange(6, dtype=np.uint32)}
    others = [
        {"b": base["a"]}, {"a": base["a"].reshape(2, 3)}, {"a": base["a"].astype(np.int32)}, {"a": base["a"] + 1}, {},
    ]  # fmt: skip
    digests = {digest_of(1, arrays) for arrays in [base, *others]}
    assert len(digests) == 6
    assert digest_of(1, base) != digest_of(1.5, base)
    columns = np.asfortranarray(np.arange(6).reshape(2, 3))
    assert digest_of(0, {"a": columns}) == digest_of(0, {"a": np.ascontiguousarray(columns)})


def test_schema_file_is_the_generated_one() -> None:
    stored = (Path(record_module.__file__).parent / "schema.json").read_text(encoding="utf-8")
    assert json.loads(stored) == record_schema(), (
        "write it again: python -m nocobench.results.record > results/schema.json"
    )


def test_a_method_is_stale_when_what_it_builds_on_has_changed() -> None:
    names = {
        name: {path.name for path in method_files(ROOT / "methods" / f"{name}.py")} for name in ("gmm_bank", "npc")
    }
    assert names == {"gmm_bank": {"gmm_bank.py", "hana.py", "memory_bank.py"}, "npc": {"npc.py", "memory_bank.py"}}
    oracles = {path.name for path in method_files(ROOT / "protocols" / "oracle.py")}
    assert oracles == {"oracle.py", "clip.py", "ce.py", "label_losses.py", "hashing_towers.py"}  # of both tasks


def test_only_finished_records_can_be_stale() -> None:
    done = make_record()
    assert is_stale(done)  # its sources are invented
    assert not is_stale(done.model_copy(update={"status": "not_applicable", "outcome": None}))
