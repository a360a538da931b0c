"""Two folders of records: states of cells, sizes of differences by hand, and what the facts allow to say about the cause."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pandas as pd
import pytest
from nocobench.analysis.compare import Compared, compare_frames, report
from nocobench.analysis.frame import AnalysisError, load_frame
from nocobench.analysis.provenance import Change, changes, facts, verdict
from nocobench.results.record import Circumstances, RunRecord
from sample_frames import command, stored
from sample_records import make_label_record, make_record

ROOT = Path(__file__).resolve().parents[1]


def circumstances(source: str = "a", torch: str = "2.6", **more: object) -> Circumstances:
    facts: dict[str, object] = {
        "sources": {"method": source * 64, "engine": "e" * 64},
        "packages": {"torch": torch},
        "machine": {"python": "3.11.7", "cpu": "one"},
        "git": {"commit": "c" * 40, "dirty": False},
        "data": {"digits.csv": "d" * 64},
    }
    return Circumstances(**(facts | more))  # type: ignore[arg-type]


def clip(rsum: float, seed: int, source: str = "a", **more: object) -> RunRecord:
    return make_record(rsum, seed=seed, circumstances=circumstances(source, **more))


def compared(tmp_path: Path, a: list[RunRecord], b: list[RunRecord]) -> Compared:
    return compare_frames(load_frame([stored(tmp_path / "a", a)]), load_frame([stored(tmp_path / "b", b)]))


@pytest.fixture
def changed(tmp_path: Path) -> Compared:
    """Five cells of clip on both sides, of which seeds 3 and 4 gain 1.5 and lose 2 points under another source; one fails in B."""
    a = [clip(300.0 + seed, seed) for seed in range(5)]
    a += [make_record(200.0, method="npc", seed=9), make_record(1.0, method="hana")]
    b = [clip(300.0 + seed, seed) for seed in range(3)] + [clip(304.5, 3, "b"), clip(302.0, 4, "b")]
    b += [make_record(None, status="failed", reason="x", method="npc", seed=9), make_label_record(20.0)]
    return compared(tmp_path, a, b)


def test_states_and_differences(changed: Compared) -> None:
    assert {state: changed.count(state) for state in ("same", "differing", "status", "unfinished", "only in A", "only in B")} == {
        "same": 3, "differing": 2, "status": 1, "unfinished": 0, "only in A": 1, "only in B": 1,
    }  # fmt: skip
    assert not changed.equal
    cells = changed.cells.set_index(["method", "seed"])
    assert cells.loc[("clip", 3), ["score_a", "score_b", "difference"]].tolist() == [303.0, 304.5, 1.5]
    assert cells.loc[("clip", 4), "difference"] == -2.0
    assert cells.loc[("clip", 0), "digest_a"] == cells.loc[("clip", 0), "digest_b"] != ""
    assert cells.loc[("npc", 9), ["status_a", "status_b", "digest_b"]].tolist() == ["done", "failed", ""]
    assert cells.loc[("rshnl", 0), "headline"] == "mean_map"
    assert math.isnan(cells.loc[("hana", 0), "difference"])


def test_the_page(changed: Compared) -> None:
    """Mean (1.5 - 2) / 5 = -0.1, mean size 3.5 / 5 = 0.7, largest -2."""
    text = report(changed, ("laptop", "server")).text()
    assert "A is laptop, B is server" in text
    (row,) = [line for line in text.splitlines() if line.startswith("toy v1")]
    assert row.split()[-6:] == ["rSum", "5", "2", "-0.10", "0.70", "-2.00"]
    flat = " ".join(text.split())
    assert (
        "source code of the method differs in every cell with another outcome and in none of the 3 with the same"
        in flat
    )
    assert "that is the likely cause" in flat
    assert (
        "| source code of the method | aaaaaaaaaaaa | bbbbbbbbbbbb | 0 of 3" in report(changed, ("a", "b")).markdown()
    )
    assert "304.50" in text
    assert "failed" in text


def test_equal_sides_say_so_and_what_changed_nevertheless(tmp_path: Path) -> None:
    a = [clip(300.0, 0), make_record(None, status="failed", reason="x", seed=1)]
    b = [clip(300.0, 0, torch="2.7"), make_record(None, status="failed", reason="y", seed=1)]
    found = compared(tmp_path, a, b)
    assert found.equal
    text = " ".join(report(found, ("a", "b")).text().split())
    assert "Both hold the same 2 cells with the same outcomes" in text
    assert "The outcomes are the same although these differ: package torch." in text


def test_same_headline_of_another_outcome(tmp_path: Path) -> None:
    found = compared(tmp_path, [make_record(300.0, best=301.0)], [make_record(300.0, best=302.0)])
    assert found.count("differing") == 1
    text = " ".join(report(found, ("a", "b")).text().split())
    assert "1 of the differing cells have the same headline" in text


def test_a_broken_file_is_no_equality(tmp_path: Path) -> None:
    roots = [stored(tmp_path / name, [clip(1.0, 0), clip(2.0, 1)]) for name in "ab"]
    for root in roots:
        next(root.rglob("seed1.json")).write_text("{")
    found = compare_frames(*(load_frame([root]) for root in roots))
    assert found.unreadable == (1, 1)
    assert not found.equal
    assert "1 files of B cannot be used" in report(found, ("a", "b")).text()


@pytest.mark.parametrize(
    ("change", "words"), [({"version": 2}, "version 1 against 2"), ({"overrides": {"epochs": 3}}, 'overrides none against {"epochs":3}')]
)  # fmt: skip
def test_cells_of_another_version_are_other_cells(tmp_path: Path, change: dict, words: str) -> None:
    found = compared(tmp_path, [make_record(1.0)], [make_record(1.0, **change)])
    text = " ".join(report(found, ("a", "b")).text().split())
    assert (
        "They have no cell in common. 1 cells of A differ from cells of B in the protocol's version or overrides"
        in text
    )
    assert words in text


def test_nothing_on_either_side(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    empty = load_frame([tmp_path / "a"])
    with pytest.raises(AnalysisError, match="neither side has a record"):
        compare_frames(empty, empty)


def test_every_recorded_fact_is_compared(tmp_path: Path) -> None:
    other = circumstances(
        "b", "2.7", machine={"python": "3.12.1", "cpu": "two"}, git={"commit": "f" * 40, "dirty": True}, threads=2, width=5, device="cuda",
        data={"digits.csv": "0" * 64, "more.csv": "1" * 64},
    )  # fmt: skip
    a = load_frame([stored(tmp_path / "a", [clip(1.0, 0)])])
    b = load_frame([stored(tmp_path / "b", [make_record(1.0, circumstances=other)])])
    index = a.index
    found = {change.what: change for change in changes(facts(a), facts(b), pd.Series(False, index=index))}
    assert set(found) == {
        "device", "threads", "runs side by side", "commit", "uncommitted changes", "source code of the method", "data file digits.csv",
        "data file more.csv", "package torch", "machine: python", "machine: cpu",
    }  # fmt: skip
    assert (found["machine: python"].before, found["machine: python"].after) == ("3.11.7", "3.12.1")
    assert (found["data file more.csv"].before, found["data file more.csv"].after) == ("not recorded", "1" * 12)
    assert [what for what, change in found.items() if not change.may_explain] == ["commit", "uncommitted changes"]


def fact(what: str, equal: int, differing: int, may_explain: bool = True) -> Change:
    return Change(what, "1", "2", equal, differing, may_explain)


@pytest.mark.parametrize(
    ("found", "equal", "differing", "words"),
    [
        # Only where outcomes differ, everywhere there: named, as the likely cause.
        ([fact("x", 0, 4)], 9, 4, "x differs in every cell with another outcome and in none of the 9 .*, and no other fact does"),
        # Two such facts: which of them is not known.
        ([fact("x", 0, 4), fact("y", 0, 4)], 9, 4, "x and y differ in every .* these records cannot tell which"),
        # Also where outcomes are the same: weaker.
        ([fact("x", 9, 4)], 9, 4, r"x \(also in 9 of 9 with the same outcome\). It may be the cause"),
        # In some of the cells only.
        ([fact("x", 0, 3)], 9, 4, r"No single recorded fact .* x \(3 of 4\)"),
        # Without equal cells there is no contrast.
        ([fact("x", 0, 4), fact("y", 0, 1)], 0, 4, "x differs in every cell .*, and other facts do in some of them: it may"),
        # The commit dates a run and explains nothing.
        ([fact("commit", 0, 4, may_explain=False)], 9, 4, "either something that is not recorded changed, or these runs do not repeat"),
        ([fact("commit", 9, 0, may_explain=False)], 9, 0, "No recorded fact that could matter differs either"),
        ([fact("x", 9, 0)], 9, 0, "The outcomes are the same although these differ: x"),
    ],
)  # fmt: skip
def test_no_cause_is_named_beyond_the_facts(found: list[Change], equal: int, differing: int, words: str) -> None:
    import re

    (sentence,) = verdict(found, equal, differing)
    assert re.search(words, sentence), sentence
    assert ("likely cause" in sentence) == (words.endswith("no other fact does"))


def test_the_command_and_its_exit_codes(tmp_path: Path) -> None:
    """A results folder stands for the runs in it; a choice may leave one side empty."""
    stored(tmp_path / "A" / "runs", [clip(1.0, 0), make_record(5.0, method="npc")])
    stored(tmp_path / "B", [clip(1.0, 0)])
    a, b = tmp_path / "A", tmp_path / "B"
    code, out, _ = command("compare", a, b, "--methods", "clip")
    assert (code, "same outcome  1" in out) == (0, True)
    code, out, _ = command("compare", a, b, "--format", "csv")
    table = pd.read_csv(io.StringIO(out))
    assert (code, table["state"].tolist()) == (1, ["same", "only in A"])
    code, out, _ = command("compare", a, b, "--format", "markdown", "--out", tmp_path / "page.md")
    assert (code, out) == (1, f"{tmp_path / 'page.md'}\n")
    assert (tmp_path / "page.md").read_text().startswith("# Comparison of two sets of records")
    code, _, err = command("compare", a, tmp_path / "none")
    assert (code, "there are no records in" in err) == (2, True)
    code, _, err = command("compare", a, b, "--methods", "vse")
    assert (code, "neither side has a record of that choice" in err) == (2, True)
    assert command("compare", a)[0] == 2
