"""The folder for a paper: from real records, the same bytes in another process, figures of the promised size, and LaTeX that compiles."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from nocobench.analysis import paper
from nocobench.analysis.frame import load_frame
from nocobench.analysis.paper import commands_text, write_kit
from nocobench.analysis.paper_figures import ONE_COLUMN, TWO_COLUMNS, plain_name
from nocobench.analysis.paper_methods import methods_text
from nocobench.results.record import Circumstances
from sample_frames import PROGRAM, command, frame_of, grid, stored
from sample_records import make_label_record, make_record

REFERENCE = Path(__file__).resolve().parents[1] / "results" / "reference" / "cpu-x86_64"
METHODS = ("cca@paper", "clip@paper", "hana@paper", "npc@paper", "oracle_clean@paper")
RATES, SEEDS = ("0.2", "0.4", "0.8"), range(3)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """45 of the published records, with what belongs to them."""
    root = tmp_path_factory.mktemp("records")
    protocol = REFERENCE / "digits-pairs-v1"
    shutil.copytree(protocol, root / protocol.name, ignore=_unwanted)
    return root


def _unwanted(folder: str, names: list[str]) -> list[str]:
    kept = {"protocol.json", "digits", *(f"nested-mismatch-{rate}" for rate in RATES), *METHODS}
    kept |= {f"seed{seed}.{ending}" for seed in SEEDS for ending in ("json", "npz")}
    return [name for name in names if name not in kept]


@pytest.fixture(scope="module")
def kit(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kit")
    code, out, err = command("paper", "--from", records, "--out", folder)
    assert (code, err) == (0, "")
    assert sorted(out.splitlines()) == sorted(str(path) for path in folder.rglob("*") if path.is_file())
    return folder


def test_the_folder_holds_what_is_promised(kit: Path) -> None:
    files = sorted(str(path.relative_to(kit)) for path in kit.rglob("*") if path.is_file())
    name = "digits-pairs-v1-digits-nested-mismatch"
    figures = [f"scores-{name}", f"weights-{name}-0-4", "ranks-digits-pairs-v1"]
    expected = [f"figures/{figure}.{end}" for figure in figures for end in ("pdf", "tex")]
    assert files == sorted(
        [*expected, f"tables/{name}.tex", "commands.txt", "example.tex", "methods.tex", "results.csv"]
    )


def test_another_process_writes_the_same_bytes(records: Path, kit: Path, tmp_path: Path) -> None:
    words = [sys.executable, str(PROGRAM), "paper", "--from", str(records), "--out", str(tmp_path / "again")]
    environment = os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C", "MPLBACKEND": "svg"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for path in (path for path in kit.rglob("*") if path.is_file()):
        assert (tmp_path / "again" / path.relative_to(kit)).read_bytes() == path.read_bytes(), path


def test_figures_have_the_width_of_one_or_two_columns_and_carry_their_fonts(kit: Path) -> None:
    widths = {}
    for path in sorted((kit / "figures").glob("*.pdf")):
        content = path.read_bytes()
        (box,) = re.findall(rb"/MediaBox \[ ?([\d. ]+?) ?\]", content)
        widths[path.name.split("-")[0]] = float(box.split()[2]) / 72
        assert b"Date" not in content
        assert b"/Type3" not in content
        assert content.count(b"/FontFile2") == content.count(b"/Type /FontDescriptor") > 0
        assert float(box.split()[3]) / 72 < 9
    assert widths == pytest.approx({"scores": ONE_COLUMN, "weights": TWO_COLUMNS, "ranks": TWO_COLUMNS})
    assert [r"\begin{figure*}" in path.read_text() for path in sorted((kit / "figures").glob("*.tex"))] == [
        True,
        False,
        True,
    ]


def test_the_methods_section_says_what_the_records_say(kit: Path) -> None:
    text = (kit / "methods.tex").read_text()
    for words in (
        "protocol digits-pairs, version 1, of NoCoBench (unchanged; track fixed-budget; backbone mlp-128; 20 epochs, batch size 128, adamw",
        "first best epoch by rSum on clean validation pairs",
        "whole test split as one gallery",
        "sklearn/digits 20def7f70a70",
        "nested-mismatch (caption level) at nominal rates 0.2, 0.4 and 0.8",
        "differs from the nominal one by at most 0.0007",
        "In each of the 9 combinations of data set, rate and seed all methods get the same noise",
        "3 seeds per method and setting (0, 1 and 2)",
        "[hana@paper]: reconstruction by this suite from what is published",
        r"[oracle\_clean@paper]: oracle",
        "Python 3.11.7",
        "torch 2.13.0",
        "commit b1d3090f920a or c0edf4fab605",
        "cpu AMD EPYC",
        "All 45 runs are finished.",
    ):
        assert words.replace("[", "{[}").replace("]", "{]}") in text, words


def test_what_the_methods_section_says_of_uneven_records(tmp_path: Path) -> None:
    def facts(torch: str) -> Circumstances:
        return Circumstances(packages={"torch": torch}, git={"commit": "a" * 40, "dirty": torch == "2.7"})

    records = [make_record(300.0 + seed, seed=seed, circumstances=facts("2.6")) for seed in range(3)]
    records += [make_record(1.0, method="npc", overrides={"epochs": 3}, circumstances=facts("2.7"))]
    records += [make_record(None, status="failed", reason="loss became NaN", method="npc", seed=1)]
    text = methods_text(frame_of(tmp_path, records))
    assert "changed: epochs = 3" in text
    assert "1 to 3 seeds per method and setting" in text
    assert "torch 2.6 or 2.7" in text
    assert "(1 of 5 runs with uncommitted changes)" in text
    assert "4 of 5 runs are finished; not: 1 failed (loss became NaN)." in text
    assert "selection rule unknown" in text
    assert "reconstruction" not in text
    single = methods_text(frame_of(tmp_path / "one", [make_record(1.0), make_record(2.0, method="npc")]))
    assert "single runs, so that no spread is known" in single


def test_commands_are_those_of_the_records(records: Path, kit: Path, tmp_path: Path) -> None:
    frame, text = load_frame([records]), (kit / "commands.txt").read_text()
    counted = {line.split()[1]: after for line, after in pairwise(text.splitlines()) if re.match(r"# \d+ record", line)}
    assert counted == {str(n): line for line, n in frame["command"].value_counts().items()}
    assert sum(map(int, counted)) == len(frame)
    odd = [
        make_record(
            1.0,
            seed=0,
            circumstances=Circumstances(command="b", started="2026-02", git={"commit": "c" * 40, "dirty": True}),
        ),
        make_record(1.0, seed=1, circumstances=Circumstances(command="a\nrm -rf x", started="2026-03")),
        make_record(1.0, seed=2),
    ]
    lines = [line for line in commands_text(frame_of(tmp_path, odd)).splitlines()[2:] if line]
    assert lines == [
        "# 1 record; no commit recorded; device cpu",
        "# these records keep no command line",
        f"# 1 record; commit {'c' * 40}, with uncommitted changes; device cpu",
        "b",
        "# 1 record; no commit recorded; device cpu",
        "a rm -rf x",
    ]


def test_the_numbers_are_those_of_the_records(records: Path, kit: Path) -> None:
    frame = load_frame([records]).sort_values("path")
    table = pd.read_csv(kit / "results.csv")
    assert table["rsum"].tolist() == frame["rsum"].tolist()
    assert all((records / path).is_file() for path in table["path"])
    shown = (kit / "tables" / "digits-pairs-v1-digits-nested-mismatch.tex").read_text()
    mean = frame[(frame["method"] == "npc") & (frame["rate"] == 0.4)]["rsum"].mean()
    (row,) = [line for line in shown.splitlines() if line.startswith("npc@paper")]
    assert f"{mean:.1f}" in row


def test_tables_too_tall_for_a_page_are_split_by_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper, "MOST_TABLE_LINES", 12)
    records = [make_label_record(20.0, method=name, bits=bits) for name in ("a", "b") for bits in (16, 64)]
    frame = frame_of(tmp_path / "records", records)
    for columns, endings in (("compact", [""]), ("paper", ["-i2t-map", "-t2i-map"])):
        paths = write_kit(frame, tmp_path / columns, columns)
        names = [path.name for path in paths if path.parent.name == "tables"]
        assert names == [f"toy-labels-v1-digits-nested-symmetric{ending}.tex" for ending in endings]
        example = (tmp_path / columns / "example.tex").read_text()
        assert all(f"\\input{{tables/{name.removesuffix('.tex')}}}" in example for name in names)


def test_bad_input_is_one_sentence(tmp_path: Path, records: Path) -> None:
    root = stored(tmp_path / "runs", [make_record(None, status="failed", reason="x")])
    code, _, err = command("paper", "--from", root, "--out", tmp_path / "kit")
    assert (code, err.count("\n"), "no run here is finished" in err) == (2, 1, True)
    assert not (tmp_path / "kit").exists()
    assert command("paper", "--from", root)[0] == 2
    (tmp_path / "file").write_text("")
    code, _, err = command("paper", "--from", records, "--methods", "cca", "--out", tmp_path / "file")
    assert (code, err.count("\n"), "choose another folder with --out" in err) == (2, 1, True)


def test_names_for_latex() -> None:
    assert plain_name("p-v1+overrides-1a_~/x y%2E_0.4") == "p-v1-overrides-1a-x-y-2E-0-4"


def compiled(folder: Path) -> tuple[str, str]:
    """The log of the second run, and the text of the pages where pdftotext is there."""
    if shutil.which("pdflatex") is None:
        pytest.skip(
            "pdflatex is not installed (Debian: texlive-latex-base, -recommended, -extra, texlive-fonts-recommended)"
        )
    for _ in range(2):
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "example.tex"],
            cwd=folder,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-3000:]
    reader = shutil.which("pdftotext")
    text = (
        subprocess.run([reader, "example.pdf", "-"], cwd=folder, capture_output=True).stdout.decode() if reader else ""
    )
    return (folder / "example.log").read_text(errors="replace"), text


def check_log(log: str) -> None:
    for trouble in ("undefined", "multiply defined", "Float too large", "Missing character", "LaTeX Error"):
        assert trouble not in log.replace("\n", ""), trouble
    wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log)]
    assert all(points < 20 for points in wide), wide


def test_the_example_compiles(kit: Path, tmp_path: Path) -> None:
    shutil.copytree(kit, tmp_path / "kit")
    log, text = compiled(tmp_path / "kit")
    check_log(log)
    for file in [*(kit / "figures").glob("*.pdf"), *(kit / "tables").glob("*.tex")]:
        assert str(file.relative_to(kit).with_suffix("")) in log.replace("\n", ""), file
    if text:
        assert "Table 1" in text
        assert "Figure 3" in text
        assert "noise rate (% of pairs)" in text  # fonts of figures keep their text


def test_signs_that_mean_something_to_latex_compile(tmp_path: Path) -> None:
    """Labels and names with every special sign, letters that pdflatex does not know, an override with quotes."""
    odd = r'A_b & 100 % #1 ~^ {x} \y $z$ "q" < > | é ß 漢 ±'
    where = {"dataset": "~/my_set %x", "overrides": {"a_b": "x'y\"%"}}
    records = [
        *grid({("me_thod", rate): [300, 301, 302] for rate in (0.2, 0.4)}, label=lambda name: odd, **where),
        *grid({("clip", rate): [200, 201, 203] for rate in (0.2, 0.4)}, **where),
        *grid({("npc", rate): [100, 101, 103] for rate in (0.2, 0.4)}, **where),
    ]
    said: list[str] = []
    paths = write_kit(frame_of(tmp_path / "records", records), tmp_path / "kit", say=said.append)
    assert {path.suffix for path in paths} == {".tex", ".pdf", ".csv", ".txt"}
    assert "[U+6F22]".replace("[", "{[}").replace("]", "{]}") in (tmp_path / "kit" / "methods.tex").read_text()
    table = pd.read_csv(io.StringIO((tmp_path / "kit" / "results.csv").read_text()))
    assert odd in set(table["label"])
    log, _ = compiled(tmp_path / "kit")
    check_log(log)
