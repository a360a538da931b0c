"""Records as a data frame: every column against the record it came from, gaps, galleries, duplicates, broken files."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nocobench.analysis.frame import (
    COLUMNS,
    TABLE_KEYS,
    UNKNOWN_RULE,
    AnalysisError,
    load_frame,
    parts,
    require_unmixed,
    select,
    selection_rule,
)
from nocobench.results.record import Circumstances, EpochEntry, RunRecord, SignalSummary
from nocobench.results.store import RecordStore
from sample_frames import frame_of, grid, stored
from sample_records import make_outcome, make_record, make_scores, make_sidecar


def with_outcome(record: RunRecord, **changes: object) -> RunRecord:
    assert record.outcome is not None
    return record.model_copy(update={"outcome": record.outcome.model_copy(update=changes)})


def one_row(root: Path, record: RunRecord, **options: object) -> pd.Series:
    return frame_of(root, [record], **options).iloc[0]


def test_a_row_holds_what_the_record_holds(tmp_path: Path) -> None:
    facts = Circumstances(
        seconds={"train": 1.5, "test": 0.25}, joules=7.0, peak_memory_bytes=9, git={"commit": "abc", "dirty": True}
    )
    row = one_row(tmp_path, make_record(1 / 3, best=0.5, flags=("control",), label="A", circumstances=facts))
    assert row["rsum"] == 1 / 3  # full precision
    assert row["i2t_r1"] == row["t2i_r10"] == (1 / 3) / 6
    assert row["optimism"] == 0.5 - 1 / 3
    assert (row["i2t_median_rank"], row["t2i_mean_rank"]) == (3.0, 4.5)
    assert (row["seconds"], row["joules"], row["peak_memory_bytes"]) == (1.75, 7.0, 9)
    assert (row["git_commit"], row["git_dirty"]) == ("abc", True)
    assert (row["label"], row["flags"], row["status"], row["stale"]) == ("A", ("control",), "done", None)
    assert (row["method"], row["variant"], row["rate"], row["seed"], row["overrides"]) == ("clip", "paper", 0.2, 0, "")
    assert row["noise_level"] == "caption level"
    assert Path(row["path"]).is_file()
    assert tuple(row.index) == COLUMNS


def test_unfinished_cells_are_rows_without_numbers(tmp_path: Path) -> None:
    row = one_row(tmp_path, make_record(None, status="failed", reason="loss became NaN", rate=None, noise="none"))
    assert (row["status"], row["reason"]) == ("failed", "loss became NaN")
    assert all(math.isnan(row[name]) for name in ("rsum", "rate", "auc", "seconds", "parameters"))


def test_galleries(tmp_path: Path) -> None:
    """Without a snapshot the whole split is the headline; the snapshot's word counts where there is one."""
    stored(tmp_path, [make_record(300.0, best=310.0, folds=400.0)])
    assert load_frame([tmp_path])["rsum"].item() == 300.0
    RecordStore(tmp_path).write_snapshot(
        "toy", 1, {}, {"evaluation": {"headline": "folds"}, "selection": {"split": "last", "metric": "rsum"}}
    )
    (row,) = load_frame([tmp_path]).to_dict("records")
    assert (row["gallery"], row["rsum"], row["full_rsum"], row["optimism"], row["selection"]) == (
        "folds",
        400.0,
        300.0,
        0.0,
        "last epoch",
    )
    assert load_frame([tmp_path], "full")["rsum"].item() == 300.0


def test_folds_that_a_protocol_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="take the gallery full"):
        frame_of(tmp_path, [make_record()], gallery="folds")


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"split": "val", "metric": "rsum"}, "first best epoch by rSum on clean validation pairs"),
        ({"split": "noisy-val", "metric": "mean_r1"}, "first best epoch by mean R@1 on noisy validation pairs"),
        ({"split": "last", "metric": "rsum"}, "last epoch"),
        (None, UNKNOWN_RULE),
    ],
)
def test_selection_rules_in_words(rule: dict | None, words: str) -> None:
    assert selection_rule({"selection": rule} if rule else {}) == words


def test_validation_pairs_with_real_noise_are_not_called_clean() -> None:
    rule = {"selection": {"split": "val", "metric": "rsum"}}
    assert selection_rule(rule, "none") == "first best epoch by rSum on validation pairs as they come"


def test_auc_of_the_selected_epoch_and_first_signal(tmp_path: Path) -> None:
    """Weights before losses, mean over networks (0.7 and 0.9), epoch 1 only."""

    def signal(kind: str, network: str, auc: float, epoch: int = 1) -> SignalSummary:
        return SignalSummary(
            epoch=epoch, signal=kind, network=network, auc=auc, mean_clean=1, mean_noisy=0, visited_fraction=1, excluded_fraction=0
        )  # type: ignore[arg-type]  # fmt: skip

    signals = (
        signal("loss", "a", 0.1),
        signal("weight", "a", 0.7),
        signal("weight", "b", 0.9),
        signal("weight", "a", 0.2, 2),
    )
    assert one_row(tmp_path, with_outcome(make_record(), signals=signals))["auc"] == pytest.approx(0.8)
    assert math.isnan(one_row(tmp_path / "none", make_record())["auc"])


def test_noisy_validation_and_single_networks(tmp_path: Path) -> None:
    """Noisy validation that chose the same epoch leaves None, which means "as selected", not "unknown"."""
    entry = EpochEntry(epoch=1, val_rsum=1, val_mean_r1=1, test_rsum=1, noisy_val_rsum=5.0)
    looked = with_outcome(make_record(300.0), history=(entry,), single_network=make_outcome(290.0).selected)
    row = one_row(tmp_path, looked)
    assert (row["noisy_val_rsum"], row["single_rsum"]) == (300.0, 290.0)
    assert math.isnan(one_row(tmp_path / "none", make_record())["noisy_val_rsum"])
    assert make_scores(300.0).rsum == 300.0


def test_broken_files_are_listed_and_in_no_row(tmp_path: Path) -> None:
    stored(tmp_path, [make_record(seed=0), make_record(seed=1)])
    path = next(tmp_path.rglob("seed1.json"))
    path.write_text("{")
    frame = load_frame([tmp_path])
    assert frame["seed"].tolist() == [0]
    ((where, reason),) = frame.attrs["broken"]
    assert where == str(path)
    assert "is not complete JSON" in reason


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="run the benchmark first"):
        load_frame([tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    assert load_frame([tmp_path / "empty"]).empty
    a, b = stored(tmp_path / "a", [make_record(seed=0)]), stored(tmp_path / "b", [make_record(seed=1)])
    assert sorted(load_frame([a, b])["seed"]) == [0, 1]
    stored(tmp_path / "b", [make_record(seed=0)])
    with pytest.raises(AnalysisError, match="the same cell lies in"):
        load_frame([a, b])


def test_staleness_is_asked_only_when_wanted(tmp_path: Path) -> None:
    stored(tmp_path, [make_record(seed=0), make_record(seed=1)])
    assert load_frame([tmp_path], stale=lambda record: record.cell.seed == 1)["stale"].tolist() == [False, True]
    assert load_frame([tmp_path])["stale"].isna().all()


def test_select(tmp_path: Path) -> None:
    frame = frame_of(tmp_path, grid({("clip", 0.2): [1, 2], ("npc", 0.4): [3, 4]}))
    assert select(frame, method="npc", seed=1)["rsum"].tolist() == [4.0]
    assert len(select(frame, method=["npc", "clip"], rate=[0.2, 0.4])) == 4
    with pytest.raises(AnalysisError, match="no record has method 'npx'; present are clip, npc"):
        select(frame, method=["clip", "npx"])
    with pytest.raises(AnalysisError, match="no column 'methd'"):
        select(frame, methd="npc")
    with pytest.raises(AnalysisError, match="none at all"):
        select(frame.iloc[:0], method="npc")


@pytest.mark.parametrize(
    "change",
    [{"protocol": "other"}, {"version": 2}, {"overrides": {"epochs": 3}}, {"dataset": "emoji"}, {"noise": "image-shuffle"},
     {"backbone": "x"}, {"track": "author-recipe"}],
)  # fmt: skip
def test_no_table_mixes_what_is_not_comparable(tmp_path: Path, change: dict) -> None:
    frame = frame_of(tmp_path, [make_record(), make_record(method="npc", **change)])
    made = list(parts(frame))
    assert len(made) == 2
    for keys, part in made:
        require_unmixed(part)
        assert tuple(keys) == TABLE_KEYS
    with pytest.raises(AnalysisError, match=f"mix {next(iter(change))} .* and .*, which one table must not"):
        require_unmixed(frame)


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(4)))
def test_frames_do_not_depend_on_the_order_of_writing(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    records = grid({("clip", 0.2): [1, 2], ("npc", 0.4): [3, 4]})
    root = tmp_path_factory.mktemp("order")
    store = RecordStore(root)
    for k in order:
        store.write(records[k], make_sidecar())
    frame = load_frame([root])
    assert list(zip(frame["method"], frame["seed"], strict=True)) == [("clip", 0), ("clip", 1), ("npc", 0), ("npc", 1)]
