"""Tables: printed numbers from records made by hand; ranks, daggers, holes, footnotes, captions; each format as its reader sees it."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nocobench.analysis import resampling
from nocobench.analysis.frame import AnalysisError, load_frame
from nocobench.analysis.latex import escape_latex, to_latex
from nocobench.analysis.layout import HONESTY, PAPER, Entry, Table, TableOptions
from nocobench.analysis.published import load_published, with_published
from nocobench.analysis.render import escape_markdown, number, tidy, to_csv, to_markdown, to_terminal, to_text
from nocobench.analysis.tables import make_table, variants_table
from nocobench.results.measures import MEASURES, measure
from nocobench.results.record import Circumstances, RunRecord
from nocobench.results.store import RecordStore
from rich.console import Console
from sample_frames import command, frame_of, grid, stored
from sample_records import make_record

CLIP, NPC = [300.0, 302, 304, 301, 303], [310.0, 312, 314, 311, 313]
NEAR = [309.0, 313, 313, 312, 312.5]
UGLY = r"50 % of a_b & {c} #1 $x ~y ^z \d <e> |f| [g] *h* – Gödel 中"


def table_of(root: Path, records: list[RunRecord], published: bool = False, **options: object) -> Table:
    table = make_table(frame_of(root, records), TableOptions(**options))  # type: ignore[arg-type]
    return with_published(table, load_published()) if published else table


def entry(table: Table, row: str, rate: float | None = 0.2, name: str = "rsum") -> Entry:
    return next(one for one in table.rows if one.name == row).entries[rate, name]


def flat(text: str) -> str:
    return " ".join(text.split())


# --- numbers, best and second, daggers


def test_mean_and_std_by_hand(tmp_path: Path) -> None:
    """10, 12, 17: mean 13, squared deviations 9 + 1 + 16 over n - 1 = 2."""
    found = entry(table_of(tmp_path, grid({("clip", 0.2): [10, 12, 17]})), "clip@paper")
    assert (found.mean, found.n, found.expected) == (13.0, 3, 3)
    assert found.std == pytest.approx(np.sqrt(13.0))
    assert number(found, measure("rsum")) == "13.0 ± 3.6"


def test_best_and_second(tmp_path: Path) -> None:
    table = table_of(tmp_path, grid({("clip", 0.2): CLIP, ("npc", 0.2): NPC, ("cca", 0.2): [1, 2, 3, 4, 5]}))
    assert [(row.name, row.entries[0.2, "rsum"].rank, row.entries[0.2, "rsum"].tied) for row in table.rows] == [
        ("cca@paper", "", False), ("clip@paper", "second", False), ("npc@paper", "best", False),
    ]  # fmt: skip


def test_equal_means_share_a_place(tmp_path: Path) -> None:
    table = table_of(tmp_path, grid({("a", 0.2): [2, 4], ("b", 0.2): [4, 2], ("c", 0.2): [1, 1], ("d", 0.2): [0, 0]}))
    assert [row.entries[0.2, "rsum"].rank for row in table.rows] == ["best", "best", "second", ""]


def test_lower_is_better_where_the_measure_says_so(tmp_path: Path) -> None:
    records = [
        make_record(method=name, seed=0, circumstances=Circumstances(seconds={"a": x}))
        for name, x in (("a", 9.0), ("b", 2.0))
    ]
    table = table_of(tmp_path, records, measures=("seconds", "networks_at_test"))
    assert [entry(table, f"{name}@paper", name="seconds").rank for name in "ab"] == ["second", "best"]
    assert {row.entries[0.2, "networks_at_test"].rank for row in table.rows} == {""}  # neither direction is better
    with pytest.raises(AnalysisError, match="unknown measure 'rsun'"):
        table_of(tmp_path / "x", records, measures=("rsun",))


def test_oracles_never_win(tmp_path: Path) -> None:
    records = grid({("clip", 0.2): CLIP, ("npc", 0.2): NPC}) + grid({("zero", 0.2): [500] * 5}, flags=("oracle",))
    table = table_of(tmp_path, records)
    assert table.rows[-1].name == "zero@paper"
    assert [row.entries[0.2, "rsum"].rank for row in table.rows] == ["second", "best", ""]
    assert "oracles do not compete" in table.caption


def test_dagger_is_the_one_of_the_significance_report(tmp_path: Path) -> None:
    cells = {("clip", 0.2): CLIP, ("npc", 0.2): NPC, ("near", 0.2): NEAR}
    table = table_of(tmp_path, grid(cells))
    assert not resampling.separable(NPC, NEAR)
    assert resampling.separable(NPC, CLIP)
    assert {row.name: row.entries[0.2, "rsum"].tied for row in table.rows} == {
        "clip@paper": False,
        "near@paper": True,
        "npc@paper": True,
    }
    assert (
        "† not separable from the best (on the best: from the second): fewer than 3 common seeds, or a 95 % interval (S"
        in table.caption
    )
    text = to_text(table)
    assert "*312.0 ± 1.6*†" in text
    assert "_311.9 ± 1.7_†" in text
    assert "302.0 ± 1.6\n" in text


@pytest.mark.parametrize("n", [2, 3])
def test_fewer_than_three_seeds_always_get_a_dagger(tmp_path: Path, n: int) -> None:
    table = table_of(tmp_path, grid({("clip", 0.2): CLIP[:n], ("npc", 0.2): [600.0] * n}))
    assert all(row.entries[0.2, "rsum"].tied is (n < 3) for row in table.rows)
    assert ("fewer than 3 common seeds" in table.caption) is (n < 3)


def test_single_runs_are_not_tested(tmp_path: Path) -> None:
    table = table_of(tmp_path, grid({("clip", 0.2): [1], ("npc", 0.2): [2]}))
    assert not any(row.entries[0.2, "rsum"].tied for row in table.rows)
    assert "a single seed, so that no spread is known" in table.caption
    assert "differences of single runs are not tested" in table.caption
    assert "±" not in to_text(table)


def test_daggers_pair_by_seed(tmp_path: Path) -> None:
    """Common seeds are 3 and 4: two, too few, although each has five."""
    table = table_of(tmp_path, grid({("clip", 0.2): [*CLIP, None, None, None], ("npc", 0.2): [None, None, None, *NPC]}))
    assert entry(table, "npc@paper").n == entry(table, "clip@paper").n == 5
    assert entry(table, "clip@paper").tied


# --- holes, footnotes, captions


def test_holes_have_reasons(tmp_path: Path) -> None:
    records = grid({("clip", 0.2): [1, 2, 3], ("clip", 0.4): [1, 2, 3], ("npc", 0.2): [4, 5, None]})
    records += [
        make_record(None, status="failed", reason="loss became NaN", method="npc", seed=2),
        make_record(None, status="timeout", reason="over 10 s", method="npc", rate=0.4, seed=0),
    ]
    table = table_of(tmp_path, records)
    some, none = entry(table, "npc@paper"), entry(table, "npc@paper", 0.4)
    assert (some.n, [table.notes[k - 1] for k in some.notes]) == (2, ["2 of 3 seeds; failed: loss became NaN (seed 2)"])
    assert (none.hole, number(none, measure("rsum"))) == ("missing/timeout", "missing/timeout")
    assert [table.notes[k - 1] for k in none.notes] == ["timeout: over 10 s (seed 0); missing: no record (seeds 1, 2)"]
    assert "Of 12 cells: 2 missing, 2 failed" in table.caption
    with pytest.raises(AnalysisError, match=r"the first is npc@paper at noise 0\.2 with 2 of 3 seeds"):
        make_table(load_frame([tmp_path]), TableOptions(strict=True))


def test_wanted_and_absent(tmp_path: Path) -> None:
    options = {"methods": ("clip@paper", "npc@paper"), "rates": (0.2, 0.4), "seeds": (0, 1)}
    table = table_of(tmp_path, grid({("clip", 0.2): [1, 2, 3]}), **options)
    assert [row.name for row in table.rows] == ["clip@paper", "npc@paper"]
    assert entry(table, "clip@paper").n == 2
    assert entry(table, "npc@paper", 0.4).hole == "missing"
    assert "Of 8 cells: 6 missing, 0 failed" in table.caption
    with pytest.raises(AnalysisError, match="none of npc@paper has a record here"):
        make_table(load_frame([tmp_path]), TableOptions(methods=("npc@paper",)))
    with pytest.raises(AnalysisError, match="no records for this table"):
        make_table(load_frame([tmp_path]).iloc[:0])


def test_not_applicable_is_no_hole_for_strict(tmp_path: Path) -> None:
    records = [
        *grid({("clip", 0.2): [1, 2]}),
        *[make_record(None, status="not_applicable", reason="needs labels", method="x", seed=s) for s in (0, 1)],
    ]
    table = table_of(tmp_path, records, strict=True)
    assert entry(table, "x@paper").hole == "n/a"
    assert "2 not applicable" in table.caption


def test_flags_and_grants_are_footnotes(tmp_path: Path) -> None:
    granted = make_record(method="meta", flags=("clean-meta-set",))
    assert granted.outcome is not None
    granted = granted.model_copy(
        update={"outcome": granted.outcome.model_copy(update={"grants": ("clean-meta-set", "noise-rate")})}
    )
    records = [
        granted,
        make_record(method="rec", flags=("reconstruction",), label="REC (reconstruction)"),
        make_record(method="own", flags=("own-generalisation",)),
    ]
    table = table_of(tmp_path, records)
    notes = {row.name: [table.notes[k - 1] for k in row.notes] for row in table.rows}
    assert "verified clean pairs" in notes["meta@paper"][0]
    assert notes["meta@paper"][1] == "uses what the protocol grants: noise-rate"
    assert notes["rec@paper"][0].startswith("reconstruction by this suite")
    assert notes["own@paper"][0].endswith("not a published method")


def test_caption_says_what_it_must(tmp_path: Path) -> None:
    RecordStore(tmp_path).write_snapshot("toy", 1, {"epochs": 3}, {"selection": {"split": "val", "metric": "rsum"}})
    records = grid({("clip", 0.2): [1, 2], ("npc", 0.2): [1, 2]}, overrides={"epochs": 3})
    text = make_table(
        frame_of(tmp_path, records, stale=lambda record: record.cell.seed == 1), TableOptions(measures=PAPER)
    ).caption
    for words in (
        "R@1/5/10 in %, image to text (i2t) and text to image (t2i); rSum (sum of six recalls in %) on digits (whole test split",
        "mean ± sample standard deviation over n = 2 seeds",
        "Protocol toy v1, overridden: epochs = 3.",
        "Noise: nested-mismatch (caption level).",
        "Selection: first best epoch by rSum on clean validation pairs.",
        "Track: fixed-budget; backbone: mlp-128.",
        "Of 4 cells: 0 missing, 0 failed, 2 stale.",
    ):
        assert words in text
    assert (
        "over n = 1 to 2 seeds"
        in table_of(tmp_path / "b", grid({("clip", 0.2): [1, 2], ("npc", 0.2): [1, None]})).caption
    )
    assert "no finished run" in table_of(tmp_path / "c", [make_record(None, status="failed", reason="x")]).caption


def test_mixtures_need_asking(tmp_path: Path) -> None:
    records = [make_record(300.0), make_record(310.0, version=2)]
    with pytest.raises(AnalysisError, match="mix version 1 and 2, which one table must not"):
        table_of(tmp_path, records)
    table = table_of(tmp_path, records, mixed=True)
    assert [row.name for row in table.rows] == ["clip@paper [version 1]", "clip@paper [version 2]"]
    assert "Protocol differs between rows: not comparable without care" in table.caption


def test_variants(tmp_path: Path) -> None:
    records = [make_record(1.0, variant="released"), make_record(2.0, variant="paper"), make_record(3.0, method="npc")]
    table = variants_table(frame_of(tmp_path, records), "clip")
    assert [row.name for row in table.rows] == ["clip@paper", "clip@released"]
    assert table.caption.startswith("Variants of clip. ")


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(tmp_path_factory: pytest.TempPathFactory, dice: object) -> None:
    frame = frame_of(
        tmp_path_factory.getbasetemp() / "rows", grid({("clip", 0.2): CLIP, ("npc", 0.2): NEAR, ("cca", 0.4): NPC})
    )
    order = list(range(len(frame)))
    dice.shuffle(order)  # type: ignore[attr-defined]
    options = TableOptions(measures=("i2t_r1", "rsum"), extras=HONESTY)
    assert to_latex(make_table(frame.iloc[order], options)) == to_latex(make_table(frame, options))


# --- formats


def every_kind(root: Path, **options: object) -> Table:
    """Ties, holes, footnotes, ugly words, oracles, published rows."""
    cells = {("npc", rate): np.array(NPC) - 30 * rate for rate in (0.0, 0.2, 0.4, 0.6, 0.8)}
    cells |= {("near", rate): np.array(NEAR) - 30 * rate for rate in (0.0, 0.2, 0.4, 0.6)}
    records = grid(cells, dataset="flickr30k-clip") + grid(
        {("oracle_clean", 0.2): CLIP}, dataset="flickr30k-clip", flags=("oracle",)
    )
    records.append(make_record(None, status="failed", reason=UGLY, label=UGLY, method="vse", dataset="flickr30k-clip"))
    return table_of(root, records, published=True, **options)


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("measures", [("rsum",), PAPER])
def test_plain_text_is_narrow(tmp_path: Path, width: int, measures: tuple[str, ...]) -> None:
    table = every_kind(tmp_path, measures=measures, extras=HONESTY)
    text = to_text(table, width)
    assert max(map(len, text.splitlines())) <= width
    for row in table.rows:  # whatever the panels are, every number is there
        for (_, name), one in row.entries.items():
            assert number(one, measure(name)).replace(" ± ", "±") in text.replace(" ± ", "±")
    assert "npc@paper is NPC" in flat(text)
    if len(measures) > 1:
        panels = [block.splitlines()[0] for block in text.split("\n\n")]
        assert {"noise 0", "noise 0.2", "noise 0.4", "noise 0.6", "noise 0.8", "rSum"} <= set(panels)


def test_panels_name_their_columns(tmp_path: Path) -> None:
    """Each rSum column carries its rate, also where only one of them is left for the last panel."""
    text = to_text(every_kind(tmp_path, measures=PAPER), 80)
    heads = [block.splitlines()[1].split("  ") for block in text.split("\n\n") if block.startswith("rSum\n")]
    rates = [word.strip() for head in heads for word in head[1:] if word.strip()]
    assert rates == ["noise 0", "noise 0.2", "noise 0.4", "noise 0.6", "noise 0.8"]


def test_small_tables_keep_labels_beside_the_names(tmp_path: Path) -> None:
    text = to_text(table_of(tmp_path, grid({("clip", 0.2): CLIP})))
    assert re.search(r"^clip@paper +CLIP +302\.0 ± 1\.6$", text, re.MULTILINE)
    assert "Rows:" not in text


def test_terminals_with_and_without_colours(tmp_path: Path) -> None:
    table = table_of(tmp_path, grid({("clip", 0.2): CLIP, ("npc", 0.2): NPC}))
    shown = {}
    for kind, options in {
        "tty": {"force_terminal": True, "color_system": "standard"},
        "pipe": {"force_terminal": False},
    }.items():
        console = Console(file=io.StringIO(), width=100, **options)  # type: ignore[arg-type]
        to_terminal(table, console)
        shown[kind] = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[1m312.0 ± 1.6\x1b[0m" in shown["tty"]
    assert "\x1b[4m302.0 ± 1.6\x1b[0m" in shown["tty"]
    assert "Best in bold, second underlined" in flat(shown["tty"])
    assert "\x1b" not in shown["pipe"]
    assert "*312.0 ± 1.6*" in shown["pipe"]


def unescaped(line: str) -> list[str]:
    """A line of a pipe table, split as Markdown does it."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown(tmp_path: Path) -> None:
    table = every_kind(tmp_path, measures=PAPER, extras=HONESTY)
    lines = [line for line in to_markdown(table).splitlines() if line.startswith("|")]
    assert {len(unescaped(line)) for line in lines} == {2 + 5 * 7 + 5}
    assert len(lines) == 2 + len(table.rows)
    text = to_markdown(table_of(tmp_path / "b", grid({("clip", 0.2): CLIP, ("npc", 0.2): NEAR, ("near", 0.2): NPC})))
    assert "**312.0 ± 1.6**†" in text
    assert "<u>311.9 ± 1.7</u>†" in text
    assert "Best in **bold**, second <u>underlined</u>" in text


def test_markdown_escapes() -> None:
    assert escape_markdown("a|b_c*d") == r"a\|b\_c\*d"
    assert escape_markdown("<b> & \n x") == "&lt;b&gt; &amp; x"


def test_csv_has_full_precision_and_everything(tmp_path: Path) -> None:
    thirds = [100 / 3, 200 / 3, 1e-13]
    table = table_of(tmp_path, grid({("clip", 0.2): thirds, ("clip", None): [1.0]}), extras=("parameters",))
    back = pd.read_csv(io.StringIO(to_csv(table)), keep_default_na=False)
    row = back[(back["rate"] == "0.2") & (back["measure"] == "rsum")].iloc[0]
    assert float(row["mean"]) == np.mean(thirds)
    assert float(row["std"]) == np.std(thirds, ddof=1)
    assert (int(row["n"]), row["row"], row["protocol"], row["noise"]) == (3, "clip@paper", "toy", "nested-mismatch")
    assert set(back["rate"]) == {"0.2", "real", "all"}
    assert len(tidy(table)) == 2 + 1
    holes = tidy(every_kind(tmp_path / "b"))
    failed = holes[(holes["row"] == "vse@paper") & (holes["rate"] == 0.2)].iloc[0]
    assert failed["hole"] == "failed/missing"
    assert UGLY in failed["notes"]


@pytest.mark.parametrize(("value", "one", "text"), [
    (-0.04, "optimism", "0.0"), (1234567.0, "parameters", "1,234,567"), (0.12345, "auc", "0.123"), (float("nan"), "rsum", "–"),
])  # fmt: skip
def test_rounding(value: float, one: str, text: str) -> None:
    assert number(Entry(value, n=0 if np.isnan(value) else 1), MEASURES[one]) == text


# --- LaTeX


def structure(source: str) -> None:
    """What a compiler would trip over: braces, environments, columns, characters with a meaning."""
    bare = source.replace("\\\\", "").replace(r"\{", "").replace(r"\}", "")
    depth = 0
    for sign in bare:
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0
    begun = re.findall(r"\\begin\{([^}]*)\}", source)
    assert begun == re.findall(r"\\end\{([^}]*)\}", source)[::-1]
    assert source.isascii()
    assert not re.search(r"(?<!\\)[%#]", source)
    spec = re.search(r"\\begin\{tabular\}\{(\w+)\}", source)
    assert spec
    inside = source[spec.end() : source.index(r"\end{tabular}")]
    for line in inside.splitlines():
        if line.endswith(r"\\"):
            spans = [int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", line)]
            assert len(re.findall(r"(?<!\\)&", line)) + 1 + sum(spans) - len(spans) == len(spec.group(1)), line
            assert not re.search(r"(?<!\\)_", line)
    outside = source.replace(inside, "")
    assert not re.search(r"(?<!\\)[&_]", outside)


LAYOUTS = [
    {"measures": ("rsum",)}, {"measures": ("rsum",), "extras": HONESTY}, {"measures": PAPER}, {"measures": PAPER, "extras": HONESTY},
    {"measures": ("i2t_r1", "t2i_r1"), "rates": (0.0, 0.2)},
    {"measures": ("rsum",), "extras": (*HONESTY, "auc", "selected_epoch", "last_rsum")},
]  # fmt: skip


@pytest.mark.parametrize("options", LAYOUTS)
def test_latex_is_well_formed(tmp_path: Path, options: dict) -> None:
    source = to_latex(every_kind(tmp_path, **options), label="tab:x")
    structure(source)
    assert r"\label{tab:x}" in source
    assert r"npc@paper is NPC" in source


def test_structure_check_can_fail() -> None:
    good = "\\begin{tabular}{lr}\na & b \\\\\n\\end{tabular}"
    structure(good)
    for bad in (
        good.replace("{lr}", "{lrr}"),
        good + "}",
        good + "50 %",
        good.replace("a &", "a_ &"),
        good.replace("b", "é"),
    ):
        with pytest.raises(AssertionError):
            structure(bad)


def test_latex_escapes() -> None:
    assert escape_latex("50 % a_b & c#d $e {f}") == r"50 \% a\_b \& c\#d \$e \{f\}"
    assert escape_latex("± † – ö č ß") == r"$\pm$ $^{\dagger}$ \textendash{} \"{o} \v {c} {\ss}"
    assert escape_latex("--epochs 中\n\x07") == "-{}-epochs {[}U+4E2D{]} "


def test_latex_compiles(tmp_path: Path) -> None:
    """All layouts in a two-column article with booktabs alone; what sticks out of the page by more than a point is an error too."""
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-base and texlive-latex-recommended)")
    wanted = [to_latex(every_kind(tmp_path / str(k), **options)) for k, options in enumerate(LAYOUTS)]
    for source in wanted:
        structure(source)
    body = "\n\\clearpage\n".join(wanted)
    document = (
        "\\documentclass[twocolumn]{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
        + body
        + "\n\\end{document}\n"
    )
    (tmp_path / "t.tex").write_text(document)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if "booktabs.sty' not found" in done.stdout:
        pytest.skip("pdflatex lacks booktabs (Debian: texlive-latex-recommended)")
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 10_000
    too_wide = [float(n) for n in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", done.stdout)]
    assert all(n <= 1 for n in too_wide), too_wide


# --- the command


def test_the_command(tmp_path: Path) -> None:
    stored(tmp_path / "runs", grid({("clip", 0.2): CLIP, ("npc", 0.2): NPC, ("npc", 0.4): NEAR}))
    table = make_table(load_frame([tmp_path / "runs"]), TableOptions(measures=PAPER))
    expected = {
        "terminal": to_text(table) + "\n",
        "markdown": to_markdown(table),
        "latex": to_latex(table),
        "csv": to_csv(table),
    }
    for form, text in expected.items():
        path = tmp_path / f"t.{form}"
        words = ("tables", "--results", tmp_path, "--format", form, "--columns", "paper")
        assert command(*words, "--out", path) == (0, f"{path}\n", "")
        assert path.read_text(encoding="utf-8") == text
        assert flat(command(*words)[1]) == flat(text)
    code, out, err = command("tables", "--results", tmp_path, "--strict")
    assert (code, out) == (2, "")
    assert err.startswith("run_benchmark.py: error: the table has holes, the first is clip@paper at noise 0.4")
    assert len(err.splitlines()) == 1
