"""One table of everything: full precision in CSV and Parquet, every column documented; and a leaderboard whose places are no findings."""

from __future__ import annotations

import importlib.util
import io
import re
from pathlib import Path

import pandas as pd
import pytest
from nocobench.analysis.export import EXPORTED, record_table, to_csv, write_parquet
from nocobench.analysis.frame import AnalysisError, load_frame
from nocobench.analysis.leaderboard import leaderboard
from nocobench.results.record import Circumstances
from sample_frames import command, frame_of, grid, stored
from sample_records import make_label_record, make_record

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    facts = Circumstances(
        seconds={"train": 0.1}, git={"commit": "c" * 40, "dirty": False}, packages={"torch": "2.6"}, threads=2
    )
    return stored(
        tmp_path / "records",
        [
            make_record(1 / 3, flags=("control", "x"), label='a "quoted", name', circumstances=facts),
            make_record(None, status="failed", reason="loss\nbecame NaN", seed=1),
            make_label_record(20.0),
            make_label_record(21.0, bits=None),
        ],
    )


def test_csv_holds_every_digit(root: Path) -> None:
    table = pd.read_csv(io.StringIO(to_csv(record_table(load_frame([root])))))
    assert tuple(table.columns) == EXPORTED
    row = table[table["label"] == 'a "quoted", name'].iloc[0]
    assert (row["rsum"], row["i2t_r1"], row["seconds"]) == (1 / 3, (1 / 3) / 6, 0.1)
    assert (row["flags"], row["packages"], row["threads"]) == ("control;x", '{"torch":"2.6"}', 2)
    failed = table[table["status"] == "failed"].iloc[0]
    assert failed["reason"] == "loss\nbecame NaN"
    assert pd.isna(failed["rsum"])
    assert pd.isna(failed["parameters"])
    assert table["bits"].dropna().tolist() == [16.0]


def test_whole_numbers_are_written_whole(root: Path) -> None:
    text = to_csv(record_table(load_frame([root])))
    assert re.search(r",1234,", text)
    assert ",1234.0," not in text


def test_parquet_gives_back_the_same_table(root: Path, tmp_path: Path) -> None:
    table = record_table(load_frame([root]))
    for name in ("a", "b"):
        write_parquet(table, tmp_path / f"{name}.parquet")
    read = pd.read_parquet(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(read, table, check_dtype=False)
    assert {str(read[name].dtype) for name in ("seed", "bits", "parameters")} == {"Int64"}
    assert read["rsum"].dtype == float
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_without_pyarrow_there_is_one_sentence(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "pyarrow" else find(name, *more)
    )
    code, out, err = command("export", "--from", root, "--format", "parquet", "--out", tmp_path / "x.parquet")
    assert (code, out) == (2, "")
    assert "pip install 'nocobench[parquet]'" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "x.parquet").exists()


def test_every_column_is_documented_once() -> None:
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.split("## Two folders")[0].splitlines() if line.startswith("| `")]
    documented = [name for row in rows for name in re.findall(r"`([a-z0-9_]+)`", row)]
    assert sorted(documented) == sorted(EXPORTED)
    assert len(set(documented)) == len(documented)


def test_the_command(root: Path, tmp_path: Path) -> None:
    code, out, _ = command("export", "--from", root, "--methods", "rshnl")
    assert (code, len(pd.read_csv(io.StringIO(out)))) == (0, 2)
    for form in ("csv", "parquet"):
        file = tmp_path / "deep" / f"x.{form}"
        assert command("export", "--from", root, "--format", form, "--out", file)[:2] == (0, f"{file}\n")
        assert len(pd.read_csv(file) if form == "csv" else pd.read_parquet(file)) == 4
    code, _, err = command("export", "--from", root, "--format", "parquet")
    assert (code, "--out FILE" in err) == (2, True)
    code, _, err = command("export", "--from", root, "--methods", "nobody")
    assert (code, "no record is of method 'nobody'" in err) == (2, True)


def rows_of(page: str) -> dict[str, list[str]]:
    """Cells of the tables by the name of the run."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")
    ]
    return {cells[2].strip("`"): cells for cells in lines if cells[2].startswith("`")}


@pytest.fixture
def board(tmp_path: Path) -> str:
    """npc and clip alike, vse far below both, an oracle above; 2 rates, 5 seeds; a sixth method at one rate only."""
    wobble = [0.0, 1.0, -1.0, 0.5, -0.5]
    shifted = [1.0, -1.0, 0.5, -0.5, 0.0]
    records = [make_record(999.0, method="msian", rate=0.2, seed=seed) for seed in range(5)]
    for rate in (0.2, 0.4):
        for method, base, moves in (("npc", 300.0, wobble), ("clip", 300.1, shifted), ("vse", 100.0, wobble)):
            records += grid({(method, rate): [base - 100 * rate + move for move in moves]})
        for method, base, flag in (("oracle_clean", 400.0, "oracle"), ("hana", 250.0, "reconstruction")):
            records += [
                make_record(base + move, method=method, rate=rate, seed=seed, flags=(flag,))
                for seed, move in enumerate(wobble)
            ]
    return leaderboard(frame_of(tmp_path / "board", records))


def test_the_leaderboard(board: str) -> None:
    rows = rows_of(board)
    assert [cells[0] for cells in rows.values()] == ["–", "1", "2", "3", "4"]
    assert list(rows) == ["oracle_clean@paper", "clip@paper", "npc@paper", "hana@paper", "vse@paper"]
    # The oracle has no rank; clip and npc share 1 and 2 and a letter; the others are told apart from all.
    assert [cells[4] for cells in rows.values()] == ["–", "1-2", "1-2", "3", "4"]
    for cells in list(rows.values())[1:]:  # beyond these data, no rank is known better
        here, beyond = ([int(end) for end in (ranks.split("-") * 2)[:2]] for ranks in (cells[4], cells[9]))
        assert beyond[0] <= here[0] <= here[-1] <= beyond[-1]
    assert rows["clip@paper"][5] == rows["npc@paper"][5] == "a"
    assert rows["vse@paper"][5] == rows["hana@paper"][5] == ""
    assert rows["npc@paper"][3] == "270.0"
    assert rows["npc@paper"][6:9] == ["2", "10", "5"]
    assert "reconstruction" in rows["hana@paper"][10]
    assert "out of competition" in rows["oracle_clean@paper"][10]


def test_the_leaderboard_says_what_it_leaves_out(board: str) -> None:
    """One data set says nothing beyond it, and a method at one rate has no place among means over two."""
    assert "msian@paper" not in rows_of(board)
    assert "not ranked, because they have runs in fewer blocks: `msian@paper`" in board
    assert "2 blocks of 1 data set (digits)" in board
    assert "A place in a list is not a finding" in board


def test_the_leaderboard_links_to_pages_that_exist(board: str) -> None:
    links = re.findall(r"\]\(([^)]+)\)", board)
    assert links
    assert all((ROOT / link).is_file() for link in links)


def test_nothing_to_rank(tmp_path: Path) -> None:
    frame = frame_of(tmp_path, [make_record(300.0)])
    with pytest.raises(AnalysisError, match="there is nothing to rank: toy v1: a comparison needs two methods"):
        leaderboard(frame)


def test_the_leaderboard_command(tmp_path: Path) -> None:
    root = stored(tmp_path / "runs", grid({("clip", 0.2): [1, 2, 3], ("npc", 0.2): [1, 2, 4]}))
    code, out, _ = command("export", "--from", root, "--format", "leaderboard", "--out", tmp_path / "leaderboard.md")
    assert (code, out) == (0, f"{tmp_path / 'leaderboard.md'}\n")
    assert (tmp_path / "leaderboard.md").read_text().startswith("# Leaderboard\n")
