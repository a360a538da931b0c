"""Published numbers beside ours: the file as it is, remarks kept, levels of noise kept apart, doubtful numbers marked and not added up."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from nocobench.analysis.frame import AnalysisError
from nocobench.analysis.layout import PAPER, Table, TableOptions
from nocobench.analysis.published import COLUMNS, PUBLISHED, load_published, with_published
from nocobench.analysis.render import tidy, to_text
from nocobench.analysis.tables import make_table
from nocobench.results.measures import RECALLS
from sample_frames import command, frame_of, grid, stored

FIVE = [300.0, 301, 302, 303, 304]


def line(**changes: object) -> dict[str, object]:
    words = {
        "method": "NPC", "source_paper": "NPC (AAAI 2024)", "dataset": "Flickr30K", "split": "test", "noise_rate": "0.2",
        "direction": "i2t", "metric": "R@1", "value": 80.0, "note": "",
    }  # fmt: skip
    return words | changes


def published(tmp_path: Path, *lines: dict[str, object]) -> pd.DataFrame:
    path = tmp_path / "published.csv"
    pd.DataFrame(lines, columns=list(COLUMNS)).to_csv(path, index=False)
    return load_published(path)


def six(values: list[float], notes: dict[int, str] | None = None, **changes: object) -> list[dict[str, object]]:
    places = [(way, k) for way in ("i2t", "t2i") for k in (1, 5, 10)]
    return [
        line(direction=way, metric=f"R@{k}", value=value, note=(notes or {}).get(n, ""), **changes)
        for n, ((way, k), value) in enumerate(zip(places, values, strict=True))
    ]


def ours(
    tmp_path: Path, noise: str = "nested-mismatch", rates: tuple[float | None, ...] = (0.2, 0.4), **options: object
) -> Table:
    records = grid({("npc", rate): FIVE for rate in rates}, dataset="flickr30k-clip", noise=noise)
    return make_table(frame_of(tmp_path / "runs", records), TableOptions(**options))  # type: ignore[arg-type]


def test_the_file_of_the_suite_is_read_whole() -> None:
    frame = load_published(PUBLISHED)
    assert len(frame) == len(PUBLISHED.read_text(encoding="utf-8").splitlines()) - 1
    assert set(frame["measure"]) == {*RECALLS, "rsum"}
    assert set(frame["kind"]) == {"rate", "real", "none"}
    assert frame["value"].between(0, 600).all()
    assert not frame.duplicated(["method", "source_paper", "dataset", "split", "noise_rate", "measure"]).any()


def test_numbers_of_the_npc_paper_stand_beside_ours(tmp_path: Path) -> None:
    """NPC README, Flickr30K, 20 % noise: i2t 87.3 97.5 98.8, t2i 72.9 92.1 95.8, together 544.4."""
    table = with_published(ours(tmp_path, measures=PAPER), load_published())
    (row,) = [
        row
        for row in table.rows
        if row.published and "README" in row.label and "intro4" not in row.label and row.name == "NPC"
    ]
    assert [row.entries[0.2, name].mean for name in RECALLS] == [87.3, 97.5, 98.8, 72.9, 92.1, 95.8]
    assert row.entries[0.2, "rsum"].mean == pytest.approx(544.4)
    assert not row.competes
    assert all(
        entry.rank == "" and not entry.tied for row in table.rows if row.published for entry in row.entries.values()
    )
    # Never in the same cell: our row is as it was.
    assert table.rows[0] == ours(tmp_path / "again", measures=PAPER).rows[0]
    text = to_text(table)
    assert f"NPC [{','.join(map(str, row.notes))}]" in text
    assert "] as published in NPC (AAAI 2024), github.com/ZhangXu0963/NPC README" in text
    assert "they do not compete" in " ".join(text.split())


def test_flagged_numbers_stay_flagged_and_are_not_added_up(tmp_path: Path) -> None:
    wrong = "KNOWN WRONG: adds the i2t R@10 here"
    frame = published(tmp_path, *six([80, 90, 95, 70, 85, 99], {5: wrong}))
    (row,) = with_published(ours(tmp_path, measures=PAPER), frame).rows[1:]
    table = with_published(ours(tmp_path / "b", measures=PAPER), frame)
    flagged = row.entries[0.2, "t2i_r10"]
    assert flagged.mean == 99.0
    assert [table.notes[n - 1] for n in flagged.notes] == [f"published: {wrong}"]
    assert row.entries[0.2, "i2t_r1"].notes == ()
    total = row.entries[0.2, "rsum"]
    assert total.n == 0
    assert [table.notes[n - 1] for n in total.notes] == [f"published: no rSum, because a recall is doubtful: {wrong}"]


@pytest.mark.parametrize(
    "word", ["WRONG NOISE RATE: x", "SUSPECT: x", "MISPRINT in the source: x", "caption-level noise; INCONSISTENT: x"]
)
def test_every_kind_of_doubt_counts(tmp_path: Path, word: str) -> None:
    """Each of these words is in the file; a note on all six numbers is still printed at each number, not once at the row."""
    frame = published(tmp_path, *six([80, 90, 95, 70, 85, 99], dict.fromkeys(range(6), word)))
    row = with_published(ours(tmp_path, measures=PAPER), frame).rows[1]
    assert row.entries[0.2, "rsum"].n == 0
    assert all(row.entries[0.2, name].notes for name in RECALLS)
    kinds = load_published()["note"]
    assert kinds.str.contains(word.partition(";")[2].strip().split()[0] if ";" in word else word.split()[0]).any()


def test_an_added_up_sum_says_so(tmp_path: Path) -> None:
    table = with_published(ours(tmp_path), published(tmp_path, *six([80, 90, 95, 70, 85, 92])))
    row = table.rows[1]
    assert row.entries[0.2, "rsum"].mean == 512.0
    assert any("rSum added up here" in table.notes[n - 1] for n in row.notes)
    five = published(tmp_path, *six([80, 90, 95, 70, 85, 92])[:5])
    assert "No published numbers" in with_published(ours(tmp_path / "b"), five).caption


def test_levels_of_noise_are_never_mixed(tmp_path: Path) -> None:
    lines = [
        line(method="NPC", note="caption-level noise"),
        line(method="NPC-image", note="image-level noise (all captions of an image move together)"),
        line(method="NPC-plain"),
        line(method="NPC-both", note="image-level-noise results and not comparable with the caption-level curves"),
    ]
    frame = published(tmp_path, *lines)
    names = {
        noise: [
            row.name
            for row in with_published(ours(tmp_path / noise, noise, measures=("i2t_r1",)), frame).rows
            if row.published
        ]
        for noise in ("nested-mismatch", "caption-shuffle", "image-shuffle")
    }
    assert names["nested-mismatch"] == names["caption-shuffle"] == ["NPC", "NPC-plain"]
    assert names["image-shuffle"] == ["NPC-image", "NPC-plain"]


def test_rates_that_are_none(tmp_path: Path) -> None:
    """A number without training is the same at every rate, real noise too; a number at a rate is not one at another."""
    frame = published(
        tmp_path, line(noise_rate="none", value=11.0), line(method="NPC-r", noise_rate="real", value=12.0)
    )
    table = with_published(ours(tmp_path, measures=("i2t_r1",)), frame)
    assert {key[0]: entry.mean for key, entry in table.rows[1].entries.items()} == {0.2: 11.0, 0.4: 11.0}
    real = with_published(ours(tmp_path / "real", "none", (None,), measures=("i2t_r1",)), frame)
    assert [row.entries[None, "i2t_r1"].mean for row in real.rows if row.published] == [11.0, 12.0]


def test_galleries_are_kept_apart(tmp_path: Path) -> None:
    records = grid({("npc", 0.2): FIVE}, dataset="coco-clip", folds=400.0)
    frame = published(
        tmp_path, *[line(dataset="MSCOCO", split=split, value=value) for split, value in (("1K", 79.0), ("5K", 61.0))]
    )
    found = {}
    stored(tmp_path / "coco", records)
    for gallery in ("full", "folds"):
        table = make_table(frame_of(tmp_path / "coco", [], gallery=gallery), TableOptions(measures=("i2t_r1",)))
        found[gallery] = [
            (row.name, row.entries[0.2, "i2t_r1"].mean) for row in with_published(table, frame).rows if row.published
        ]
    assert found == {"full": [("NPC (5K)", 61.0)], "folds": [("NPC (1K)", 79.0)]}


def test_which_methods(tmp_path: Path) -> None:
    frame = published(tmp_path, line(), line(method="NPC+OSA"), line(method="NCR"), line(method="NPCish"))
    table = ours(tmp_path, measures=("i2t_r1",))
    assert [row.name for row in with_published(table, frame).rows if row.published] == ["NPC", "NPC+OSA"]
    assert [row.name for row in with_published(table, frame, ["ncr"]).rows if row.published] == ["NCR"]
    with pytest.raises(AnalysisError, match="no paper here prints a method 'ncx'; printed are NCR, NPC"):
        with_published(table, frame, ["ncx"])


def test_nothing_to_show_is_said(tmp_path: Path) -> None:
    digits = make_table(frame_of(tmp_path, grid({("npc", 0.2): FIVE})))
    table = with_published(digits, load_published())
    assert table.rows == digits.rows
    assert "No published numbers" in table.caption


def test_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="restore the file"):
        load_published(tmp_path / "absent.csv")
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(AnalysisError, match="have columns a, b; expected method"):
        load_published(tmp_path / "x.csv")
    with pytest.raises(AnalysisError, match="unknown measure i2t R@50"):
        published(tmp_path, line(metric="R@50"))


def test_tidy_says_which_rows_are_published(tmp_path: Path) -> None:
    rows = tidy(with_published(ours(tmp_path), published(tmp_path, *six([1, 2, 3, 4, 5, 6]))))
    assert rows[rows["published"]]["row"].unique().tolist() == ["NPC"]
    assert rows[~rows["published"]]["row"].unique().tolist() == ["npc@paper"]


def test_the_command(tmp_path: Path) -> None:
    stored(tmp_path / "runs", grid({("npc", 0.2): FIVE}, dataset="flickr30k-clip"))
    words = ("tables", "--results", tmp_path, "--columns", "paper")
    code, out, _ = command(*words, "--published", "DECL-SGRAF", "NPC")
    assert code == 0
    assert "87.3" in out
    assert "they do not compete" in " ".join(out.split())
    assert "87.3" not in command(*words)[1]
    code, out, err = command(*words, "--published", "NPX")
    assert (code, out) == (2, "")
    assert err.startswith("run_benchmark.py: error: no paper here prints a method 'NPX'")
