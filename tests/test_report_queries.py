"""Per-query comparisons of the page against the tests that they speed up, and published numbers against their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nocobench.analysis.frame import AnalysisError, load_frame
from nocobench.analysis.per_query import mcnemar, query_tests
from nocobench.analysis.published import load_published
from nocobench.analysis.published_labels import load_published_labels
from nocobench.analysis.report_details import details
from nocobench.analysis.report_published import UNSTATED, load_settings, our_name, published_payload
from nocobench.analysis.report_queries import RESAMPLES, mcnemar_counts, sign_flip_tests
from nocobench.analysis.report_rows import page_rows
from nocobench.analysis.resampling import generator, sign_flip_test
from nocobench.analysis.significance import scores
from nocobench.results.store import RecordStore
from sample_frames import frame_of, grid
from sample_records import make_record


def test_flips_for_many_pairs_agree_with_the_test_of_one() -> None:
    rng = np.random.default_rng(5)
    shifts = np.array([0.0, 0.02, 0.05, 0.2])
    differences = rng.normal(size=(300, 4)) * 0.3 + shifts
    differences[:40] = 0.0  # queries that both answer alike
    together = sign_flip_tests(differences, generator("together"))
    for column, p in enumerate(together):
        alone = sign_flip_test(differences[:, column], generator(f"alone {column}"))
        assert p == pytest.approx(alone, abs=4 * np.sqrt(max(alone * (1 - alone), 1e-4) / RESAMPLES) + 1e-3)
    assert together[-1] == pytest.approx(1 / (RESAMPLES + 1))


def test_flips_without_any_difference_give_one() -> None:
    assert sign_flip_tests(np.zeros((5, 2)), generator("none")).tolist() == [1.0, 1.0]


def test_flips_of_four_queries_by_hand() -> None:
    """All four differ by 1: of 16 equally likely signs, 2 reach the sum of 4, so p is 1/8."""
    assert sign_flip_tests(np.ones((4, 1)), generator("four"))[0] == pytest.approx(0.125, abs=0.015)


@pytest.mark.parametrize("seed", range(5))
def test_mcnemar_of_the_page_is_the_exact_test(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random(60) < 0.6, rng.random(60) < 0.4
    exact = mcnemar(a, b)
    found = mcnemar_counts(a, b)
    assert found is not None
    assert found[:2] == [exact.only_a, exact.only_b]
    assert found[2] == pytest.approx(exact.p, rel=1e-6)
    assert mcnemar_counts(a, a) == [0, 0, 1.0]
    assert mcnemar_counts(None, a) is None


def with_queries(root: Path) -> pd.DataFrame:
    """Two methods, two seeds: on the first 6 of 20 queries the first finds its item at once, the second one place later."""
    store, none = RecordStore(root), np.zeros(20, dtype=np.uint32)
    for method, worse in (("npc", 0), ("clip", 1)):
        for seed in range(2):
            better = none.copy()
            better[:6] = worse
            arrays = {
                f"{way}_{name}": values
                for way in ("i2t", "t2i")
                for name, values in (("better", better), ("tied", none), ("own_tied", none + 1))
            }
            store.write(make_record(300.0 - worse, method=method, seed=seed, rate=0.4, label=method), arrays)
    return load_frame([root])


def test_two_methods_by_query_as_the_significance_report_has_them(tmp_path: Path) -> None:
    frame = with_queries(tmp_path)
    rows = page_rows(frame)
    found = details(rows, frame).queries
    assert [one["way"] for one in found] == ["i2t", "t2i"]
    (pair,) = found[0]["pairs"]
    assert [rows[pair[name]].name for name in ("first", "second")] == ["npc@paper", "clip@paper"]
    assert (pair["better"], pair["worse"], pair["seeds"]) == (6, 0, [0, 1])
    assert pair["difference"] == pytest.approx(6 * 0.5 / 20)
    assert pair["queries"] == [[query, 1.0, 0.5] for query in range(6)]
    table = scores(frame)
    block = table.blocks().index[0]
    same = query_tests(table, "npc@paper", "clip@paper", block, "i2t", [])
    assert same is not None
    assert pair["difference"] == pytest.approx(same.difference)
    assert pair["p"] == pytest.approx(same.p, abs=0.02)
    assert [one[2] for one in pair["mcnemar"]] == pytest.approx([test.p for test in same.mcnemar])


def columns_of(payload: dict, *names: str) -> pd.DataFrame:
    """Texts instead of their numbers."""
    kept = {"ours", "rate", "bits", "measure", "value", "doubtful", "recalls"}
    return pd.DataFrame(
        {
            name: values if name in kept else [payload["texts"][k] for k in values]
            for name, values in payload["columns"].items()
            if name in names or not names
        }
    )


def test_every_published_number_is_in_the_page_and_doubtful_ones_stay_marked(tmp_path: Path) -> None:
    frame = frame_of(tmp_path, grid({("npc", 0.2): [300.0]}))
    lines = columns_of(published_payload(page_rows(frame)))
    pairs, labels = load_published(), load_published_labels()
    keys = ["source_paper", "dataset", "split", "method", "noise_rate"]
    assert len(lines) == len(pairs[keys].drop_duplicates()) + len(labels)
    wrong = lines[(lines["source"] == "OSA (arXiv 2410.01944), README table 2") & (lines["method"] == "NPC")]
    assert wrong[wrong["notes"].str.contains("WRONG NOISE RATE")]["doubtful"].map(len).min() > 0
    flagged = pairs[pairs["note"].str.contains("WRONG|SUSPECT|MISPRINT|INCONSISTENT")]
    assert (lines["doubtful"].map(len) > 0).sum() >= len(flagged[keys].drop_duplicates())
    assert set(lines["ours"].map(len)) == {0}


def test_ours_stand_beside_the_same_data_rate_and_level_only(tmp_path: Path) -> None:
    records = [
        make_record(500.0, method="ncr", dataset="flickr30k-clip", noise=noise, protocol=f"p-{noise}", rate=0.2)
        for noise in ("caption-shuffle", "image-shuffle")
    ]
    frame = frame_of(tmp_path, records)
    rows = page_rows(frame)
    lines = columns_of(published_payload(rows))
    beside = lines[lines["ours"].map(len) > 0]
    assert set(beside["dataset"]) == {"Flickr30K"}
    assert set(beside["rate"]) == {0.2}
    for line in beside.itertuples():
        levels = {str(rows[k].keys["noise"]) for k in line.ours}
        if "image-level" in line.notes:
            assert levels == {"image-shuffle"}
        if "caption-level" in line.notes:
            assert levels == {"caption-shuffle"}
    assert {"image-shuffle", "caption-shuffle"} <= {str(rows[k].keys["noise"]) for one in beside["ours"] for k in one}


@pytest.mark.parametrize(
    ("printed", "name"),
    [
        ("NPC", "npc"),
        ("DECL-SGRAF", "decl"),
        ("CLIP ViT-B/32 zero-shot", "clip_zeroshot"),
        ("CLIP+OSA", ""),
        ("RSHNL", "rshnl"),
    ],
)
def test_printed_names_lead_to_our_methods(printed: str, name: str) -> None:
    assert our_name(printed) == name


def test_settings_are_of_methods_that_papers_print() -> None:
    pairs, settings = load_published(), load_settings()
    printed = set(pairs["method"])
    sources = set(pairs["source_paper"])
    assert settings
    for method, source in settings:
        assert method in printed
        assert source == "" or source in sources
    assert all(UNSTATED not in line.values() for line in settings.values())
    assert all(line["seen_in"] for line in settings.values())


def test_a_damaged_settings_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="restore the file"):
        load_settings(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(AnalysisError, match="expected method, source_paper"):
        load_settings(tmp_path / "other.csv")
