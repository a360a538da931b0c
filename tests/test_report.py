"""The page of the report: what it holds, that it holds nothing else, and that its sentences follow the numbers."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nocobench.analysis import report, report_details
from nocobench.analysis.frame import load_frame
from nocobench.analysis.report import ReportOptions, build_report, json_for_html, write_report
from nocobench.analysis.report_details import SCALE, choose, density_of, packed
from nocobench.analysis.report_rows import page_rows, relative
from nocobench.analysis.report_statistics import compared, main_variants
from nocobench.analysis.report_text import listed, summary
from nocobench.analysis.stored import load_runs
from nocobench.analysis.style import looks
from nocobench.results.record import Circumstances, RunRecord
from sample_frames import command, frame_of, grid, stored
from sample_records import make_label_record, make_record

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \u2028 ]]> <!-- \"quoted\" 'too'"
APART = {
    ("npc", 0.2): [300.0, 301.0, 302.0, 303.0, 304.0],
    ("clip", 0.2): [200.0, 201.5, 202.0, 203.5, 204.0],
    ("ncr", 0.2): [299.0, 302.0, 301.0, 304.5, 303.0],
    ("npc", 0.4): [250.0, 251.0, 252.0, 253.0, 254.0],
    ("clip", 0.4): [150.0, 151.5, 152.0, 153.5, 154.0],
    ("ncr", 0.4): [251.5, 250.0, 253.0, 252.0, 253.5],
}


def page_of(root: Path, records: Sequence[RunRecord], **options: Any) -> str:
    return build_report(frame_of(root, records), root.parent / "report", ReportOptions(**options))


def payload_of(page: str) -> dict[str, Any]:
    """The data inside the page, found as a browser finds it: up to the first closing tag."""
    found = re.search(r'<script id="data" type="application/json">(.*?)</script', page, flags=re.S)
    assert found is not None
    return dict(json.loads(found.group(1)))


def sentences_of(root: Path, records: Sequence[RunRecord]) -> str:
    frame = frame_of(root, records).sort_values("path", kind="stable").reset_index(drop=True)
    return " ".join(text for one in summary(frame, page_rows(frame), compared(frame)) for text in one.sentences)


def test_the_page_is_the_same_for_the_same_records_whatever_their_order(tmp_path: Path) -> None:
    records = grid(APART)
    first = page_of(tmp_path / "a" / "runs", records)
    assert page_of(tmp_path / "b" / "runs", records[::-1]) == first.replace(str(tmp_path / "a"), str(tmp_path / "b"))


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = page_of(tmp_path / "runs", grid(APART))
    assert re.findall(r'(?:src|href)="(?!#|data:,")[^"]*"', page) == []
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|importScripts|innerHTML|document\.write|eval\(", page)
    assert "default-src 'none'" in page


def test_the_policy_allows_this_script_and_this_style_only() -> None:
    """Known hash: the empty text."""
    empty = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
    said = report.policy("", "x")
    assert f"style-src {empty}" in said
    assert f"script-src {empty}" not in said
    assert "unsafe" not in said


def test_names_and_reasons_from_records_cannot_become_markup(tmp_path: Path) -> None:
    records = [
        make_record(
            300.0, seed=0, label=HOSTILE, circumstances=Circumstances(command=HOSTILE, machine={"cpu": HOSTILE})
        ),
        make_record(None, status="failed", reason=HOSTILE, method="ncr", label=HOSTILE),
        make_record(200.0, method="npc", label="NPC"),
    ]
    page = page_of(tmp_path / "runs", records, title=HOSTILE, command=HOSTILE)
    scripts = re.findall(r"<script\b[^>]*>", page)
    assert len(scripts) == 2
    assert "<img" not in page
    assert "<script>alert" not in page
    payload = payload_of(page)
    assert HOSTILE in payload["records"]["reasons"]
    assert payload["records"]["circumstances"][0]["command"] == HOSTILE


def test_json_inside_a_script_keeps_its_value() -> None:
    value = {"text": HOSTILE, "list": [1, None, 0.5]}
    text = json_for_html(value)
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_for_html(float("nan"))


def test_rows_hold_what_the_tables_say(tmp_path: Path) -> None:
    records = [*grid(APART), make_record(None, status="failed", reason="out of memory", method="hana", seed=0)]
    payload = payload_of(page_of(tmp_path / "runs", records))
    rows, methods = payload["rows"], [one["name"] for one in payload["methods"]]
    place = next(k for k, one in enumerate(rows["method"]) if methods[one] == "npc@paper" and rows["rate"][k] == 0.2)
    assert (rows["mean"][place], rows["n"][place], rows["expected"][place]) == (302.0, 5, 5)
    assert rows["sd"][place] == pytest.approx(np.std([300, 301, 302, 303, 304], ddof=1), rel=1e-6)
    assert rows["rank"][place] == 1
    failed = next(k for k, one in enumerate(rows["method"]) if methods[one] == "hana@paper" and rows["rate"][k] == 0.2)
    assert "failed" in rows["hole"][failed]
    assert rows["mean"][failed] is None
    reasons = [payload["rows"]["noteTexts"][note] for note in rows["notes"][failed]]
    assert any("out of memory" in reason for reason in reasons)


def test_every_record_can_be_found_from_its_row(tmp_path: Path) -> None:
    records = [*grid(APART), make_label_record(30.0, seed=0), make_label_record(31.0, seed=0, bits=32)]
    payload = payload_of(page_of(tmp_path / "runs", records))
    rows, cells = payload["rows"], payload["records"]["cell"]
    assert sorted(cells) == sorted(record.cell_id for record in records)
    spans = [k for first, count in zip(rows["first"], rows["count"], strict=True) for k in range(first, first + count)]
    assert spans == list(range(len(cells)))
    by_id = {record.cell_id: record for record in records}
    for place, (first, count) in enumerate(zip(rows["first"], rows["count"], strict=True)):
        for k in range(first, first + count):
            cell = by_id[cells[k]].cell
            assert payload["methods"][rows["method"][place]]["name"] == f"{cell.method}@{cell.variant}"
            assert (rows["rate"][place], rows["bits"][place]) == (cell.rate, cell.bits)
            assert payload["records"]["seed"][k] == cell.seed


def test_records_beside_the_page_are_links_and_others_are_paths(tmp_path: Path) -> None:
    frame = frame_of(tmp_path / "results" / "runs", grid(APART))
    beside = payload_of(build_report(frame, tmp_path / "results" / "report", ReportOptions()))
    folder = beside["records"]["folders"][0]
    assert Path(os.path.normpath(tmp_path / "results" / "report" / folder["link"] / "seed0.json")).is_file()
    elsewhere = payload_of(build_report(frame, tmp_path / "other" / "place", ReportOptions()))
    assert {one["link"] for one in elsewhere["records"]["folders"]} == {""}
    assert Path(elsewhere["records"]["folders"][0]["path"]).is_dir()


def test_relative_is_empty_outside_of_the_folder_above() -> None:
    assert relative(Path("/a/b/runs/x"), Path("/a/b/report")) == "../runs/x"
    assert relative(Path("/a/runs/x"), Path("/a/b/report")) == ""


def test_colours_are_those_of_all_figures(tmp_path: Path) -> None:
    payload = payload_of(page_of(tmp_path / "runs", grid(APART)))
    for one in payload["methods"]:
        look = looks([one["name"]])[one["name"]]
        assert (one["colour"], one["marker"], tuple(one["dash"])) == (look.color, look.marker, look.dash[1])


def test_sentences_follow_the_numbers(tmp_path: Path) -> None:
    text = sentences_of(tmp_path / "runs", grid(APART))
    assert "On these data sets and rates, for whatever seeds, it is better than CLIP." in text
    assert re.search(r"(NPC|NCR) cannot be told apart from (NPC|NCR)\.", text)
    assert "With one data set, nothing here says that a difference holds on other data than digits." in text
    assert "No run of the grids that these records span is missing, and none failed." in text


def test_the_best_over_all_may_be_behind_on_what_two_share(tmp_path: Path) -> None:
    """NPC is best where all three ran; NCR leads by far in a third block, which CLIP lacks."""
    records = grid(
        APART | {("npc", 0.6): [100.0, 101.0, 102.0, 103.0, 104.0], ("ncr", 0.6): [180.0, 181.5, 182.0, 183.5, 184.0]}
    )
    text = sentences_of(tmp_path / "runs", records)
    assert "Of the 3 methods with runs in the same 2 blocks NPC has the best mean rSum: 277.0." in text
    assert "On what it has in common with them, it is worse than NCR." in text


def test_one_seed_tells_nothing_apart(tmp_path: Path) -> None:
    text = sentences_of(tmp_path / "runs", grid({key: values[:1] for key, values in APART.items()}))
    assert "it is better than" not in text
    assert "it can be told apart from" not in text
    assert "3 pairs of methods, none can be told apart" in text
    assert "1 seed can show a difference, and prove none." in text
    assert "So nothing here shows that" in text


def test_what_is_missing_failed_or_not_of_the_field_is_said(tmp_path: Path) -> None:
    records = [
        *grid({("npc", 0.2): [300.0, 301.0, None], ("clip", 0.2): [200.0, 201.0, 202.0]}),
        make_record(None, status="failed", reason="out of memory", method="ncr"),
        make_record(310.0, method="hana", label="HaNa (reconstruction)", flags=("reconstruction",)),
        make_record(400.0, method="oracle_clean", label="Oracle", flags=("oracle", "control")),
    ]
    text = sentences_of(tmp_path / "runs", records)
    assert "have no record" in text
    assert "1 run failed: out of memory." in text
    assert "HaNa (reconstruction). Their numbers say nothing about the originals." in text
    assert "an upper bound that does not compete: Oracle." in text
    assert "Whether the source code has changed since was not checked" in text


def test_stale_records_and_mixed_sources_are_said(tmp_path: Path) -> None:
    def made(code: str) -> Circumstances:
        return Circumstances(sources={"method": code, "engine": "e"}, git={"commit": "c", "dirty": code == "b"})

    records = [
        make_record(300.0 + seed, seed=seed, circumstances=made(code)) for seed, code in enumerate("aab")
    ] + grid({("npc", 0.2): [200.0, 201.0, 202.0]})  # fmt: skip
    frame = load_frame([stored(tmp_path, records)], stale=lambda record: record.cell.method == "npc")
    text = " ".join(one for part in summary(frame, page_rows(frame), compared(frame)) for one in part.sentences)
    assert "3 runs made by other source code than today's (stale)." in text
    assert "so that their seeds may not belong together: clip@paper on digits." in text
    assert "1 record from a modified working tree" in text


def test_ablations_are_compared_only_when_named(tmp_path: Path) -> None:
    records = grid(APART) + [
        make_record(290.0 + seed, method="npc", variant="weight_only", rate=rate, seed=seed)
        for rate in (0.2, 0.4) for seed in range(5)
    ]  # fmt: skip
    frame = frame_of(tmp_path / "runs", records)
    assert main_variants(frame) == {"npc@paper", "clip@paper", "ncr@paper"}
    (plain,), (every,) = compared(frame), compared(frame, every_variant=True)
    assert plain.left_out == ("npc@weight_only",)
    assert every.left_out == ()
    assert len(every.report.pairs) == 6  # type: ignore[union-attr]
    assert "1 further variant (ablations) is in the table" in sentences_of(tmp_path / "again" / "runs", records)


def test_paper_against_released_is_found_where_both_ran(tmp_path: Path) -> None:
    records = grid(APART) + [
        make_record(200.0 + seed, method="npc", variant="released", rate=0.2, seed=seed) for seed in range(5)
    ]
    payload = payload_of(page_of(tmp_path / "runs", records))
    (entry,) = payload["audit"]
    assert entry["method"] == "npc"
    ((paper, released),) = entry["rows"]
    assert (payload["rows"]["mean"][paper], payload["rows"]["mean"][released]) == (302.0, 202.0)
    assert len(entry["sentences"]) == 1


def test_details_are_bounded_and_say_what_is_left_out(tmp_path: Path) -> None:
    records = grid(APART)
    few, all_of_them = (payload_of(page_of(tmp_path / f"{n}" / "runs", records, details=n)) for n in (2, 50))
    assert len(few["training"]) == 2
    assert "for 2 of 6 rows" in few["detailsSentence"]
    assert len(all_of_them["training"]) == 6
    assert "rows" not in all_of_them["detailsSentence"]
    assert payload_of(page_of(tmp_path / "none" / "runs", records, details=0))["training"] == []


def test_details_go_to_every_place_and_to_main_variants_first(tmp_path: Path) -> None:
    records = grid(APART) + [make_record(290.0, method="aaa", variant="ablation", rate=rate) for rate in (0.2, 0.4)]
    rows = page_rows(frame_of(tmp_path / "runs", records).reset_index(drop=True))
    chosen = [rows[k] for k in choose(rows, range(len(rows)), 6)]
    assert {one.name for one in chosen} == {"npc@paper", "clip@paper", "ncr@paper"}
    assert sorted(one.plain_rate or 0.0 for one in chosen) == [0.2] * 3 + [0.4] * 3


def test_a_lost_sidecar_costs_its_densities_only(tmp_path: Path) -> None:
    records = grid(APART)
    root = stored(tmp_path / "runs", records)
    frame = load_frame([root])
    next(root.rglob("*.npz")).unlink()
    payload = payload_of(build_report(frame, tmp_path / "report", ReportOptions()))
    assert len(payload["training"]) == 6
    assert "1 run is without densities" in payload["detailsSentence"]


def test_densities_pool_seeds_and_lose_no_pair(tmp_path: Path) -> None:
    """Two epochs by hand: clean pairs in the upper half, of the noisy ones a quarter left out."""
    clean, noisy = np.zeros((2, 256), dtype=np.uint32), np.zeros((2, 256), dtype=np.uint32)
    clean[:, 192], noisy[:, 64] = 10, 6
    arrays = {
        "signal_epochs": np.array([1, 2], dtype=np.uint32),
        "histogram/weight/net/clean": clean, "histogram/weight/net/noisy": noisy,
        "edges/weight/net": np.linspace(0, 1, 257, dtype=np.float32),
        "excluded/weight/net/clean": np.array([0, 0], dtype=np.uint32),
        "excluded/weight/net/noisy": np.array([2, 2], dtype=np.uint32),
    }  # fmt: skip
    frame = load_frame([stored(tmp_path, grid({("npc", 0.4): [300.0, 301.0]}), arrays)])
    found = density_of(load_runs(frame), "weight")
    assert found is not None
    assert (found["epochs"], found["seeds"], found["top"]) == ([1, 2], 2, 1.0)
    assert found["excluded"] == {"clean": [0.0, 0.0], "noisy": [0.25, 0.25]}
    shares = {side: np.array([unpack(text) for text in found[side]]) for side in ("clean", "noisy")}
    assert shares["clean"].argmax(axis=1).tolist() == [48, 48]
    assert shares["clean"].sum(axis=1) == pytest.approx(1.0, abs=64 / SCALE)
    assert shares["noisy"].sum(axis=1) == pytest.approx(0.75, abs=64 / SCALE)


def unpack(text: str) -> list[float]:
    digits = [report_details.DIGITS64.index(sign) for sign in text]
    return [(64 * high + low) / SCALE for high, low in zip(digits[::2], digits[1::2], strict=True)]


def test_packing_keeps_three_digits() -> None:
    values = np.linspace(0, 1, 101)
    assert np.abs(np.array(unpack(packed(values))) - values).max() <= 0.5 / SCALE + 1e-12


@pytest.mark.parametrize(
    ("names", "words"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_lists_in_words(names: list[str], words: str) -> None:
    assert listed(names) == words
    assert listed([*"abcde"], most=3) == "a, b, c and 2 more"


def test_every_asset_is_packaged_and_used() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assets = sorted(path.name for path in report.ASSETS.iterdir())
    assert assets == sorted(["page.html", "page.css", *report.SCRIPTS])
    for name in assets:
        assert any(fnmatch.fnmatch(f"report_assets/{name}", one) for one in patterns["nocobench.analysis"])


def test_the_command_writes_the_page_and_names_it(tmp_path: Path) -> None:
    stored(tmp_path / "runs", grid(APART))
    code, out, err = command("report", "--methods", "npc", "clip", "--results", tmp_path)
    assert (code, err) == (0, "")
    path = Path(out.strip())
    assert path == tmp_path / "report" / "index.html"
    page = path.read_text(encoding="utf-8")
    assert "python run_benchmark.py report --methods npc clip" in page
    assert {one["name"] for one in payload_of(page)["methods"]} == {"npc@paper", "clip@paper"}


@pytest.mark.parametrize("folder", ["nothing", "runs"])
def test_without_records_one_sentence_says_how_to_get_some(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    code, out, err = command("report", "--results", tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "report --from reference" in err
    assert "--methods hana npc" in err


def test_bad_options_are_one_sentence(tmp_path: Path) -> None:
    stored(tmp_path / "runs", grid(APART))
    for words, said in ((["--details", "-1"], "--details -1"), (["--methods", "nobody"], "nobody")):
        code, _, err = command("report", "--results", tmp_path, *words)
        assert (code, err.count("\n")) == (2, 1)
        assert said in err


def test_the_page_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = frame_of(tmp_path / "runs", grid(APART))
    path = write_report(frame, tmp_path / "report", ReportOptions(details=0))
    before = path.read_bytes()
    monkeypatch.setattr(report, "page_rows", lambda frame: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(frame, tmp_path / "report")
    assert path.read_bytes() == before
