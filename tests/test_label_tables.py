"""Tables, figures and significance of label-based retrieval: columns of rate and bits, real values apart, published numbers beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from nocobench.analysis import published_labels
from nocobench.analysis.figures import draw_all
from nocobench.analysis.frame import AnalysisError, load_frame
from nocobench.analysis.latex import to_latex
from nocobench.analysis.layout import PAPER_LABELS, Coded, TableOptions
from nocobench.analysis.render import tidy, to_markdown, to_text
from nocobench.analysis.significance_report import significance_report
from nocobench.analysis.tables import make_table
from nocobench.results.record import digest_of
from nocobench.results.store import RecordStore
from sample_records import make_label_record, make_record

matplotlib.use("Agg")
METHODS = {"ce": 20.0, "rshnl": 30.0, "nrch": 25.0}


def fill(root: Path, seeds: int = 2, **changes: Any) -> Path:
    """Three methods with codes and one real-valued, two rates, two lengths."""
    store = RecordStore(root)
    for seed in range(seeds):
        for rate in (0.2, 0.6):
            for name, value in METHODS.items():
                for bits in (16, 64):
                    score = value + bits / 32 - 10 * rate + 0.1 * seed
                    write(store, score, method=name, bits=bits, rate=rate, seed=seed, **changes)
            write(store, 99.0 + 0.1 * seed, method="mrl", bits=None, rate=rate, seed=seed, **changes)
    return root


def write(store: RecordStore, score: float, **cell: Any) -> None:
    record = make_label_record(score, **cell)
    curve = np.linspace(1, 0.1, 5)
    arrays = {f"{way}_{name}": curve for way in ("i2t", "t2i") for name in ("precision", "recall")}
    arrays |= {f"{way}_cutoffs": np.array([1, 2, 5, 20, 60], dtype=np.uint32) for way in ("i2t", "t2i")}
    random = np.random.default_rng(int(score * 10))
    arrays |= {
        f"{way}_average_precision": (score / 100 + 0.1 * random.random(60)).astype(np.float32) for way in ("i2t", "t2i")
    }
    assert record.outcome is not None
    digest = digest_of(record.outcome.model_dump(mode="json"), arrays)
    store.write(record.model_copy(update={"outcome_digest": digest}), arrays)


@pytest.fixture
def frame(tmp_path: Path) -> pd.DataFrame:
    return load_frame([fill(tmp_path / "runs")])


def test_columns_are_rates_and_bits_with_real_values_last(frame: pd.DataFrame) -> None:
    table = make_table(frame)
    expected = [Coded(rate, bits) for rate in (0.2, 0.6) for bits in (16, 64, None)]
    assert list(table.rates) == expected
    assert [one.name for one in table.measures] == ["mean_map"]


def test_real_valued_methods_do_not_compete_with_codes(frame: pd.DataFrame) -> None:
    rows = {row.name: row for row in make_table(frame).rows}
    codes, real = (Coded(0.2, 16), "mean_map"), (Coded(0.2, None), "mean_map")
    assert rows["rshnl@released"].entries[codes].rank == "best"
    assert rows["nrch@released"].entries[codes].rank == "second"
    assert rows["mrl@released"].entries[codes].hole == "–"
    assert rows["rshnl@released"].entries[real].hole == "–"
    assert rows["mrl@released"].entries[real].mean == pytest.approx(99.05)


def test_what_no_method_can_have_is_not_missing(frame: pd.DataFrame) -> None:
    assert "Of 28 cells: 0 missing" in make_table(frame).caption
    make_table(frame, TableOptions(strict=True))
    lacking = (frame["method"] == "rshnl") & (frame["bits"] == 64) & (frame["rate"] == 0.6) & (frame["seed"] == 1)
    with pytest.raises(AnalysisError, match=r"rshnl@released at noise 0\.6, 64 bits with 1 of 2 seeds"):
        make_table(frame[~lacking], TableOptions(strict=True))


def test_the_caption_says_what_is_searched_and_how_wide_ties_are(frame: pd.DataFrame) -> None:
    caption = make_table(frame).caption
    assert "expected over random order of ties" in caption
    assert "16 bits: 2.0; 64 bits: 2.0" in caption
    known = frame.assign(database="train", database_codes="learned")
    caption = make_table(known).caption
    assert "test items search the training items" in caption
    assert "as training learned them, labels included" in caption


@pytest.mark.parametrize("form", [to_text, to_markdown, to_latex])
def test_every_format_shows_every_column(frame: pd.DataFrame, form: Any) -> None:
    text = form(make_table(frame, TableOptions(measures=PAPER_LABELS)))
    for words in ("64 bits", "real-valued", "i2t MAP", "t2i MAP"):
        assert words in text


def test_csv_tells_bits_apart(frame: pd.DataFrame) -> None:
    rows = tidy(make_table(frame))
    assert set(rows["bits"]) == {16, 64, "real-valued"}
    assert len(rows) == 4 * 6


def test_latex_groups_bits_under_their_rate(frame: pd.DataFrame) -> None:
    text = to_latex(make_table(frame))
    assert r"\multicolumn{3}{c}{noise 0.2} & \multicolumn{3}{c}{noise 0.6}" in text
    assert r"\cmidrule(lr){2-4}\cmidrule(lr){5-7}" in text
    assert "run & 16 bits & 64 bits & real-valued & 16 bits & 64 bits & real-valued" in text


# --- figures


def test_figures_are_drawn_per_length_of_codes(frame: pd.DataFrame, tmp_path: Path) -> None:
    paths = draw_all(frame, tmp_path / "out", ["map-vs-noise", "precision-recall", "map-curves", "critical-difference"])
    names = {path.stem for path in paths}
    assert "map-vs-noise_toy-labels-v1_digits_nested-symmetric_64-bits" in names
    assert "precision-recall_toy-labels-v1_digits_nested-symmetric-0.6_16-bits" in names
    assert "validation-curves_toy-labels-v1_digits_nested-symmetric_real-valued" in names
    assert "critical-difference_toy-labels-v1" in names


def test_kinds_of_the_other_task_are_not_complained_about(frame: pd.DataFrame, tmp_path: Path) -> None:
    said: list[str] = []
    draw_all(frame, tmp_path / "out", say=said.append)
    assert not any("similarity-density" in sentence for sentence in said)


# --- significance


def test_codes_are_compared_without_the_real_valued(frame: pd.DataFrame) -> None:
    text = significance_report(frame).text()
    assert "Significance of differences in MAP" in text
    assert "4 blocks of 1 data set" in text
    words = " ".join(text.split())
    assert "left out, because real-valued embeddings are not compared with codes: mrl@released" in words
    assert "difference of the average precision" in words
    assert "McNemar" not in words


def test_tasks_are_not_mixed(frame: pd.DataFrame, tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "pairs")
    store.write(make_record(300.0), {})
    both = pd.concat([frame, load_frame([tmp_path / "pairs"])])
    with pytest.raises(AnalysisError, match="mix task label-hashing and pair-retrieval"):
        significance_report(both)


# --- published


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    return published_labels.load_published_labels()


def test_published_numbers_are_in_percent(published: pd.DataFrame) -> None:
    known = published[
        (published["method"] == "MGSH") & (published["dataset"] == "MS-COCO") & (published["bits"] == 128)
    ]
    mean = known[(known["measure"] == "mean_map") & (known["rate"] == 0.2)]["value"]
    assert mean.tolist() == [pytest.approx(72.4)]
    rshnl = published[
        (published["source"] == "rshnl") & (published["method"] == "RSHNL") & (published["dataset"] == "XMedia")
    ]
    value = rshnl[(rshnl["measure"] == "i2t_map") & (rshnl["rate"] == 0.8) & (rshnl["bits"] == 64)]["value"]
    assert value.tolist() == [87.6]
    assert published["value"].max() <= 100


def test_published_rows_stand_beside_ours_with_their_setting(published: pd.DataFrame, tmp_path: Path) -> None:
    frame = load_frame([fill(tmp_path / "runs", dataset="xmedia")])
    options = TableOptions(measures=PAPER_LABELS)
    table = published_labels.with_published_labels(
        make_table(frame, options), published_labels.chosen(published, ["rshnl"])
    )
    row = next(row for row in table.rows if row.name == "RSHNL")
    entry = row.entries[Coded(0.6, 64), "i2t_map"]
    assert (entry.mean, entry.n, row.competes, row.published) == (88.9, 1, False, True)
    assert any("redrawn among all classes" in note and "clean validation labels" in note for note in table.notes)
    assert row.entries[Coded(0.6, None), "i2t_map"].hole == "–"


def test_data_that_no_paper_has_is_said(frame: pd.DataFrame, published: pd.DataFrame) -> None:
    table = published_labels.with_published_labels(make_table(frame), published)
    assert "No paper prints numbers of digits with these features" in table.caption
    assert not any(row.published for row in table.rows)


def test_papers_own_tables_are_called_not_reproduced(published: pd.DataFrame) -> None:
    tables = published_labels.published_tables(published_labels.chosen(published, ["rshnl"]), ["xmedia"])
    assert {table.keys["dataset"] for table in tables} == {"INRIA-Websearch", "XMediaNet"}
    assert all(table.caption.startswith("Published, not reproduced here") for table in tables)
    for table in tables:
        assert "Rows: " not in to_text(table)
        assert r"\begin{tabular}" in to_latex(table)


def test_doubtful_numbers_stay_marked(published: pd.DataFrame) -> None:
    tables = published_labels.published_tables(published_labels.chosen(published, ["HCCH"]), [])
    assert any("suspicious" in note for table in tables for note in table.notes)


def test_an_unknown_name_lists_the_known(published: pd.DataFrame) -> None:
    with pytest.raises(AnalysisError, match="papers are rshnl, mgsh, printed are"):
        published_labels.chosen(published, ["nobody"])
