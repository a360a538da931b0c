"""Figures come from records alone, say what they show, keep the looks of methods, and are the same bytes whenever they are drawn."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.figure import Figure
from nocobench.analysis import commands, curves, densities, diagrams, figures, profiles, style
from nocobench.analysis.curves import curve
from nocobench.analysis.densities import rebin, signal_density, similarity_density
from nocobench.analysis.figures import KINDS, draw_all
from nocobench.analysis.frame import COLUMNS, AnalysisError, load_frame
from nocobench.analysis.ranks import average_ranks, critical_difference, maximal_cliques
from nocobench.analysis.stored import StoredRun, load_runs, pages
from nocobench.analysis.style import DASHES, SEATS, looks
from nocobench.results.record import EpochEntry, RunRecord, SignalSummary
from nocobench.results.sidecar import sidecar_path
from nocobench.results.store import RecordStore
from sample_records import make_record

ROOT = Path(__file__).resolve().parents[1]
EPOCHS = 3
SIDES = {"clean": 60, "noisy": 40}
SIGNALS = ("weight", "clean_probability", "loss")


def make_run(
    rsum: float, signals: tuple[str, ...] = SIGNALS, networks: tuple[str, ...] = ("net",), **cell: object
) -> RunRecord:
    """A finished run of three epochs; validation peaks in the second one, which is the selected one."""
    record = make_record(rsum=rsum, **cell)
    assert record.outcome is not None
    history = tuple(
        EpochEntry(epoch=epoch, val_rsum=rsum + bump, val_mean_r1=rsum / 6, test_rsum=rsum)
        for epoch, bump in enumerate((-150.0, -20.0, 10.0, -15.0))
    )
    known = record.cell.rate is not None
    summaries = tuple(
        SignalSummary(epoch=epoch, signal=signal, network=network, auc=0.6 + 0.1 * epoch if known else float("nan"),
                      mean_clean=0.7, mean_noisy=0.3, visited_fraction=1.0, excluded_fraction=0.0)
        for epoch in range(1, EPOCHS + 1) for signal in signals for network in networks
    )  # fmt: skip
    selected = record.outcome.selected.model_copy(update={"epoch": 2})
    outcome = record.outcome.model_copy(update={"history": history, "signals": summaries, "selected": selected})
    return record.model_copy(update={"outcome": outcome})


def make_arrays(record: RunRecord) -> dict[str, np.ndarray]:
    """Histograms of 60 clean and 40 noisy pairs, of which a partition left 6 and 30 out in the last epoch; none under real noise."""
    assert record.outcome is not None
    if record.cell.rate is None:
        return {}
    random = np.random.default_rng(record.cell.seed)
    arrays: dict[str, np.ndarray] = {"signal_epochs": np.arange(1, EPOCHS + 1, dtype=np.uint32)}
    for signal, network in sorted({(s.signal, s.network) for s in record.outcome.signals}):
        top = 4.0 + record.cell.seed if signal == "loss" else 1.0
        arrays[f"edges/{signal}/{network}"] = np.linspace(0, top, 257).astype(np.float32)
        for side, count in SIDES.items():
            key = f"{signal}/{network}/{side}"
            out = np.array([0, 0, 6 if side == "clean" else 30], dtype=np.uint32)
            values = [top * random.beta(5, 2 if side == "clean" else 9, count - left) for left in out]
            rows = [np.histogram(one, bins=256, range=(0, top))[0] for one in values]
            arrays[f"histogram/{key}"] = np.stack(rows).astype(np.uint32)
            arrays[f"excluded/{key}"] = out
            arrays[f"not_visited/{key}"] = np.zeros(EPOCHS, dtype=np.uint32)
    arrays["edges/similarity"] = np.linspace(-1, 1, 257).astype(np.float32)
    for side, count in SIDES.items():
        values = random.normal(0.4 if side == "clean" else 0.1, 0.1, count)
        arrays[f"similarity/{side}"] = np.histogram(values, bins=256, range=(-1, 1))[0].astype(np.uint32)
    return arrays


METHODS = (
    ("clip", "CLIP (InfoNCE)", (), ("loss",)),
    ("npc", "NPC", (), SIGNALS),
    (
        "msian",
        "MSIAN-style meta-reweighting (reconstruction; no official code)",
        ("reconstruction",),
        ("weight", "loss"),
    ),
    ("oracle_clean", "InfoNCE on the clean pairs (oracle)", ("oracle", "control"), ("loss",)),
)


def fill(root: Path, rates: tuple[float | None, ...] = (0.0, 0.4), seeds: int = 2, **cell: object) -> Path:
    store = RecordStore(root)
    for number, (method, label, flags, signals) in enumerate(METHODS):
        for rate in rates:
            for seed in range(seeds):
                rsum = 300 - 100 * (rate or 0.0) + 10 * number + seed
                record = make_run(rsum, signals, method=method, label=label, flags=flags, rate=rate, seed=seed, **cell)
                store.write(record, make_arrays(record))
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("figures") / "runs")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Figures by file name, caught instead of written: a page of text is checked faster than its pixels."""
    caught: dict[str, Figure] = {}

    def keep(figure: Figure, folder: Path, name: str) -> list[Path]:
        caught[name] = figure
        return [folder / f"{name}.png", folder / f"{name}.svg"]

    for module in (curves, densities, diagrams, profiles):
        monkeypatch.setattr(module, "save", keep)
    return caught


def words(figure: Figure) -> str:
    """All text of a figure outside its panels and legends, unwrapped."""
    return " ".join(f"{figure.get_suptitle()} {figure.get_supxlabel()}".split())


def entries(figure: Figure) -> list[str]:
    return [" ".join(text.get_text().split()) for legend in figure.legends for text in legend.get_texts()]


# --- all kinds, from files to files


def test_every_kind_is_drawn_and_named_for_what_it_shows(root: Path, drawn: dict[str, Figure]) -> None:
    said: list[str] = []
    paths = draw_all(load_frame([root]), Path("out"), say=said.append)
    assert said == []
    assert {path.name.partition("_")[0] for path in paths} == set(KINDS) - {"precision-recall"}
    assert {path.suffix for path in paths} == {".png", ".svg"}
    assert sorted(drawn) == sorted(
        [f"{s}-density_toy-v1_digits_nested-mismatch-{r}" for s in ("weight", "clean-probability", "loss") for r in ("0", "0.4")]
        + [f"{k}_toy-v1_digits_nested-mismatch" for k in ("similarity-density", "rsum-vs-noise", "validation-curves", "auc-curves")]
        + ["critical-difference_toy-v1", "performance-profile_toy-v1"]
    )  # fmt: skip
    for figure in drawn.values():
        assert "Protocol toy v1" in words(figure)
        assert "seeds" in words(figure)
    assert "mean ± sample standard deviation over n = 2 seeds" in words(
        drawn["rsum-vs-noise_toy-v1_digits_nested-mismatch"]
    )
    assert METHODS[2][1] in entries(drawn["auc-curves_toy-v1_digits_nested-mismatch"])


def test_the_same_bytes_in_two_processes_whatever_the_user_has_set(root: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "matplotlibrc"
    hostile.write_text(
        "text.usetex: True\nfont.family: serif\nfont.size: 30\nsavefig.dpi: 31\nsavefig.bbox: tight\nsavefig.transparent: True\n"
        "svg.fonttype: none\nsvg.hashsalt: other\naxes.facecolor: yellow\nlines.linewidth: 9\nbackend: svg\nhatch.linewidth: 7\n"
        "path.simplify: False\nfigure.constrained_layout.use: False\ntimezone: Asia/Tokyo\naxes.prop_cycle: cycler('color', 'r')\n"
    )
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from nocobench.analysis.figures import draw_all\nfrom nocobench.analysis.frame import load_frame\n"
        "kinds = ['clean-probability-density', 'rsum-vs-noise', 'critical-difference']\n"
        "draw_all(load_frame([Path(sys.argv[1])]), Path(sys.argv[2]), kinds)\n"
    )
    settings_of = {
        "one": {"PYTHONHASHSEED": "1"},
        "two": {"MATPLOTLIBRC": str(hostile), "PYTHONHASHSEED": "2", "SOURCE_DATE_EPOCH": "7"},
    }
    for name, changes in settings_of.items():
        command = [sys.executable, "-c", code, str(root), str(tmp_path / name)]
        done = subprocess.run(command, env=os.environ | changes, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    found = {
        name: {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / name).iterdir()}
        for name in settings_of
    }
    assert len(found["one"]) == 8
    assert found["one"] == found["two"]
    text = "".join(path.read_text() for path in (tmp_path / "one").glob("*.svg"))
    assert "dc:date" not in text
    assert "<text" not in text  # outlines: no font of the reader's machine takes part


def test_the_command_names_files_filters_and_what_it_cannot_draw(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    commands.ARGUMENTS["figures"](parser)
    parser.add_argument("--results", type=Path, default=tmp_path)
    words = [
        "--from",
        str(root),
        "--out",
        str(tmp_path),
        "--methods",
        "npc",
        "clip",
        "--kinds",
        "critical-difference",
        "rsum-vs-noise",
    ]
    assert commands.figures(parser.parse_args(words)) == 0
    out, err = capsys.readouterr()
    assert [Path(line).suffix for line in out.splitlines()] == [".png", ".svg"]
    assert all(Path(line).stat().st_size > 1000 for line in out.splitlines())
    assert err.count("\n") == 1
    assert "no critical-difference figure: ranks need three methods" in err
    with pytest.raises(AnalysisError, match="no record is of method 'nobody'"):
        commands.figures(parser.parse_args(["--from", str(root), "--methods", "nobody"]))


def test_a_slip_in_a_kind_is_one_sentence_and_exit_code_two(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "run_benchmark.py"),
        "figures",
        "--results",
        str(tmp_path),
        "--kinds",
        "weigth-density",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "unknown kind of figure 'weigth-density'; did you mean 'weight-density'?" in done.stderr


# --- nothing to draw


def test_nothing_at_all_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(AnalysisError, match="no run here is finished; nothing to draw"):
        draw_all(load_frame([tmp_path / "runs"]), tmp_path / "out")
    with pytest.raises(AnalysisError, match="there are no records in"):
        load_frame([tmp_path / "nowhere"])
    with pytest.raises(AnalysisError, match=r"unknown kind of figure 'x'; known are weight-density, "):
        draw_all(load_frame([tmp_path / "runs"]), tmp_path / "out", ["x"])
    assert not (tmp_path / "out").exists()


def test_a_kind_without_material_is_said_and_the_others_are_drawn(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    store = RecordStore(tmp_path / "runs")
    record = make_run(300.0, ("loss",), rate=0.4)
    store.write(record, make_arrays(record))
    store.write(make_record(status="failed", reason="the loss became non-finite", rate=0.4, seed=1))
    said: list[str] = []
    draw_all(load_frame([tmp_path / "runs"]), tmp_path, say=said.append)
    assert [sentence.partition(":")[0] for sentence in said] == [
        "no weight-density figure", "no clean-probability-density figure", "no critical-difference figure",
        "no performance-profile figure",
    ]  # fmt: skip
    assert len(drawn) == 5
    with pytest.raises(AnalysisError, match="no weight-density figure: no method here logs a weight"):
        draw_all(load_frame([tmp_path / "runs"]), tmp_path, ["weight-density"])


def test_a_damaged_sidecar_costs_its_densities_only_and_is_said(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    root, said = fill(tmp_path / "runs", rates=(0.4,)), []
    first = load_runs(load_frame([root]))[0]
    sidecar_path(first.path).write_bytes(b"PK")
    draw_all(load_frame([root]), tmp_path, ["loss-density", "validation-curves"], say=said.append)
    assert len(said) == 1
    assert said[0].startswith("densities are without 1 of 8 runs, the first one because sidecar ")
    assert "pairs of 1 to 2 seeds pooled" in words(drawn["loss-density_toy-v1_digits_nested-mismatch-0.4"])


# --- holes, single seeds, real noise


def test_holes_become_smaller_n_and_single_seeds_have_no_band(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    found = curve(
        [{0: 1.0, 1: 2.0, 2: np.nan}, {0: 3.0, 3: np.nan}]
    )  # at 0: mean 2, std sqrt(2), two seeds; at 1: one seed
    assert found.x.tolist() == [0, 1]
    assert found.mean.tolist() == [2, 2]
    assert found.n.tolist() == [2, 1]
    assert found.std[0] == pytest.approx(np.sqrt(2))
    assert np.isnan(found.std[1])
    assert "n = 1 to 2 seeds, no band where there is one seed" in curves.band_words([found])
    assert len(curve([])) == len(curve([{1: np.nan}])) == 0
    draw_all(load_frame([fill(tmp_path / "runs", seeds=1)]), tmp_path, ["rsum-vs-noise"])
    figure = drawn["rsum-vs-noise_toy-v1_digits_nested-mismatch"]
    assert "n = 1 seed, so that there is no band" in words(figure)
    assert all(len(band.get_paths()) == 0 for band in figure.axes[0].collections)


def test_a_method_that_lacks_a_rate_keeps_its_other_points(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    root = fill(tmp_path / "runs")
    record = make_run(250.0, method="vse", rate=0.4, seed=0)
    RecordStore(root).write(record, make_arrays(record))
    draw_all(load_frame([root]), tmp_path, ["rsum-vs-noise", "similarity-density", "critical-difference"])
    assert "over n = 1 to 2 seeds" in words(drawn["rsum-vs-noise_toy-v1_digits_nested-mismatch"])
    texts = [
        text.get_text()
        for axes in drawn["similarity-density_toy-v1_digits_nested-mismatch"].axes
        for text in axes.texts
    ]
    assert texts.count("no run") == 1
    assert "Not ranked, for lack of runs: vse@paper" in words(drawn["critical-difference_toy-v1"])


def test_real_noise_has_scores_and_curves_but_no_densities(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    root, said = fill(tmp_path / "runs", rates=(None,), noise="none"), []
    draw_all(load_frame([root]), tmp_path, say=said.append)
    assert sorted(drawn) == [
        "performance-profile_toy-v1", "rsum-vs-noise_toy-v1_digits_none", "validation-curves_toy-v1_digits_none"
    ]  # fmt: skip
    assert len(said) == 6
    assert "digits, real noise" in words(drawn["rsum-vs-noise_toy-v1_digits_none"])
    assert "real noise" in [axes.get_title() for axes in drawn["validation-curves_toy-v1_digits_none"].axes]


def test_protocols_tracks_and_overrides_are_never_mixed(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    root = fill(tmp_path / "runs", rates=(0.4,), seeds=1)
    fill(root, rates=(0.4,), seeds=1, overrides={"budget.epochs": 3})
    fill(root, rates=(0.4,), seeds=1, version=2, track="author-recipe")
    fill(root, rates=(0.4,), seeds=1, dataset="emoji", noise="image-shuffle")
    draw_all(load_frame([root]), tmp_path, ["validation-curves"])
    assert len(drawn) == 4
    changed = next(figure for name, figure in drawn.items() if "overrides" in name)
    assert "Protocol toy v1, overridden: budget.epochs = 3; track fixed-budget" in words(changed)
    assert any(name.startswith("validation-curves_toy-v2_author-recipe_digits") for name in drawn)


def test_many_methods_go_on_several_pages_with_the_oracle_on_each(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    root = fill(tmp_path / "runs", rates=(0.4,), seeds=1)
    for number in range(20):
        record = make_run(200.0 + number, method=f"stranger_{number:02d}", label=f"Stranger {number}", rate=0.4)
        RecordStore(root).write(record, make_arrays(record))
    draw_all(load_frame([root]), tmp_path, ["validation-curves", "weight-density"])
    validation = {name: figure for name, figure in drawn.items() if name.startswith("validation")}
    assert [name[-6:] for name in sorted(validation)] == ["_part1", "_part2"]
    shown = [entries(figure) for figure in validation.values()]
    assert sorted(set(shown[0]) & set(shown[1])) == ["InfoNCE on the clean pairs (oracle)"]
    assert len(set(shown[0]) | set(shown[1])) == 24
    assert "(part 1 of 2)" in words(next(iter(validation.values())))
    assert len({figure.axes[0].get_ylim() for figure in validation.values()}) == 1
    assert sum(name.startswith("weight-density") for name in drawn) == 3


@given(st.lists(st.integers(), max_size=40), st.integers(1, 12))
def test_pages_keep_all_in_order(names: list[int], most: int) -> None:
    parts = pages(names, most)
    assert [name for part in parts for name in part] == names
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert len(parts) == max(1, -(-len(names) // most))


# --- numbers behind the densities


@given(
    counts=hnp.arrays(np.uint32, st.integers(1, 300), elements=st.integers(0, 10_000)),
    low=st.floats(-2, 2), width=st.floats(0.01, 50), bins=st.integers(1, 100),
    new_low=st.floats(-3, 3), new_width=st.floats(0.01, 60),
)  # fmt: skip
@settings(deadline=None)
def test_rebinning_conserves_mass(
    counts: np.ndarray, low: float, width: float, bins: int, new_low: float, new_width: float
) -> None:
    edges = np.linspace(low, low + width, len(counts) + 1)
    new = rebin(counts, edges, np.linspace(new_low, new_low + new_width, bins + 1))
    assert new.sum() == pytest.approx(counts.sum(), rel=1e-9, abs=1e-9)
    assert (new >= -1e-9).all()


def test_rebinning_by_hand() -> None:
    # Bins of width 1 with 4 and 2 pairs; halves of width 0.5 get 2, 2, 1, 1; the bin [0.5, 1.5] gets 2 + 1 and outside goes to the ends.
    assert rebin(np.array([4, 2]), np.array([0, 1, 2.0]), np.array([0, 0.5, 1, 1.5, 2])).tolist() == [2, 2, 1, 1]
    assert rebin(np.array([4, 2]), np.array([0, 1, 2.0]), np.array([0.5, 1.0, 1.5])).tolist() == [4, 2]


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("column", densities.COLUMNS)
def test_pooled_densities_sum_to_one_with_what_was_left_out(root: Path, signal: str, column: str) -> None:
    runs = [run for run in load_runs(load_frame([root])) if run.name == "npc@paper" and run.rate == 0.4]
    found = signal_density(runs, signal, column)
    for side, count in SIDES.items():
        assert found.shares[side].sum() + found.excluded[side] == pytest.approx(1)
        left_out = {"clean": 6, "noisy": 30}[side] / count if column == "last" and signal == "weight" else 0
        assert found.excluded[side] == pytest.approx(left_out)
        area = (found.heights(side) * np.diff(found.edges)).sum()
        assert area == pytest.approx(1 - left_out)
    assert found.epochs == ({"first": 1, "middle": 2, "selected": 2, "last": 3}[column],) * 2
    assert found.auc == pytest.approx(0.6 + 0.1 * found.epochs[0])
    assert found.edges[-1] == (5.0 if signal == "loss" else 1.0)  # the widest of the seeds


def test_similarities_sum_to_one_and_a_side_without_pairs_stays_empty(root: Path) -> None:
    runs = [run for run in load_runs(load_frame([root])) if run.name == "npc@paper"]
    found = similarity_density(runs)
    assert [found.shares[side].sum() for side in SIDES] == pytest.approx([1, 1])
    for run in runs:
        run.arrays["similarity/noisy"] = np.zeros(256, dtype=np.uint32)
    empty = similarity_density(runs)
    assert empty.sides() == ["clean"]
    assert empty.shares["noisy"].sum() == 0


def test_epochs_in_which_a_signal_was_not_logged_are_passed_over() -> None:
    run = StoredRun(make_run(300.0, ("weight",), ("a", "b"), rate=0.4), Path("nowhere"))
    arrays = make_arrays(run.record)
    for side in SIDES:
        arrays[f"histogram/weight/a/{side}"][:2] = 0  # a warm-up of two epochs
        arrays[f"histogram/weight/b/{side}"][:] = 0
    run.__dict__["arrays"] = arrays
    assert densities.networks_of(run, "weight") == ["a"]
    assert densities.networks_of(run, "loss") == []
    assert set(densities.chosen_epochs(run, "weight").values()) == {3}


# --- looks


def test_looks_stay_when_methods_and_variants_are_added() -> None:
    mine = ["my_method@default", "npc@paper", "npc@released", "other@sharp"]
    before = looks(mine)
    after = looks([*mine, *(f"{name}@paper" for name in SEATS), "hana@a", "npc@wide"])
    assert {name: after[name] for name in mine} == before
    assert before["my_method@default"].dash == before["npc@paper"].dash == DASHES[0]
    assert before["npc@paper"].color == before["npc@released"].color
    assert before["npc@paper"].dash != before["npc@released"].dash


def test_no_two_methods_look_alike() -> None:
    labels = {"oracle_clean_labels", "ce", "lc", "rshnl", "mgsh", "nrch", "ucch", "cmmq", "hcch", "mrl", "nirnl"}
    for together in (set(SEATS) - labels, labels):  # the two tasks are never in one figure
        found = looks([*(f"{name}@paper" for name in together), *(f"stranger_{number}@paper" for number in range(16))])
        assert len({(look.color, look.marker) for look in found.values()}) == len(found)
    found = looks([f"{name}@paper" for name in SEATS])
    many = looks([f"npc@{number}" for number in range(5)])
    assert len({look.dash for look in many.values()}) == 5
    assert found["oracle_clean@paper"].color == "#000000"
    assert len({style.PALETTE, style.FOREIGN_COLOURS}) == 2
    assert not set(style.PALETTE) & set(style.FOREIGN_COLOURS)


# --- the critical-difference diagram


def frame_of(scores: pd.DataFrame) -> pd.DataFrame:
    rows = [
        {"task": "pair-retrieval", "protocol": "toy", "version": 1, "overrides": "", "dataset": "digits", "noise": "nested-mismatch",
         "rate": rate, "method": method, "variant": "paper", "backbone": "mlp", "track": "fixed-budget", "seed": 0, "status": "done",
         "gallery": "full", "selection": "last epoch", "label": method.upper(), "reason": "", "flags": (),
         "rsum": value, "path": f"{method}{rate}"}
        for method, values in scores.items() for rate, value in zip(np.arange(len(values)) / 100, values, strict=True)
        if np.isfinite(value)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_the_bars_are_the_maximal_cliques() -> None:
    random = np.random.default_rng(5)
    scores = pd.DataFrame({f"m{i}": 40 * (i // 2) + random.normal(0, 20, 30) for i in range(7)})
    found = diagrams.diagram_of(frame_of(scores))
    assert found is not None
    ranks = average_ranks(scores.add_suffix("@paper", axis=1))
    difference = critical_difference(7, 30)
    assert found.ranking.cliques == maximal_cliques(ranks, difference)
    bars = diagrams.clique_bars(found.ranking)
    assert bars == [
        (ranks[list(clique)].min(), ranks[list(clique)].max()) for clique in maximal_cliques(ranks, difference)
    ]
    assert len(bars) > 2
    assert all(high - low <= difference for low, high in bars)


def test_the_diagram_draws_every_bar_and_label(drawn: dict[str, Figure]) -> None:
    random = np.random.default_rng(5)
    scores = pd.DataFrame({f"m{i}": 40 * (i // 2) + random.normal(0, 20, 30) for i in range(7)})
    diagrams.draw_critical_difference(frame_of(scores), Path("out"))
    (axes,) = drawn["critical-difference_toy-v1"].axes
    thick = [line for line in axes.lines if line.get_linewidth() == 3]
    found = diagrams.diagram_of(frame_of(scores))
    assert found is not None
    assert len(thick) == len(found.ranking.cliques)
    assert len({line.get_ydata()[0] for line in thick}) == len(thick)  # none hides another
    assert {f"M{i}" for i in range(7)} <= {text.get_text() for text in axes.texts}
    assert "Friedman: chi-square(6) = " in words(drawn["critical-difference_toy-v1"])


def test_data_sets_with_protocols_of_their_own_share_one_diagram(drawn: dict[str, Figure]) -> None:
    """Two protocols, a data set each: three diagrams; the same data set under both: two, because its blocks would count twice."""
    scores = pd.DataFrame({f"m{i}": np.arange(4) + 3.0 * i for i in range(4)})
    one, other = frame_of(scores), frame_of(scores).assign(protocol="second", dataset="emoji")
    diagrams.draw_critical_difference(pd.concat([one, other], ignore_index=True), Path("out"))
    assert set(drawn) == {f"critical-difference_{name}" for name in ("toy-v1", "second-v1", "all-data-sets")}
    assert "over 8 blocks" in words(drawn["critical-difference_all-data-sets"])
    drawn.clear()
    both = pd.concat([one, other.assign(dataset="digits")], ignore_index=True)
    diagrams.draw_critical_difference(both, Path("out"))
    assert set(drawn) == {f"critical-difference_{name}" for name in ("toy-v1", "second-v1")}


def test_the_largest_complete_table_is_ranked() -> None:
    scores = pd.DataFrame({f"m{i}": np.arange(6) + 3.0 * i for i in range(5)})
    scores.loc[1:, "m4"] = np.nan  # one block of six: without m4 there are 4 x 6 entries, with it 5 x 1
    found = diagrams.diagram_of(frame_of(scores))
    assert found is not None
    assert found.left_out == ("m4@paper",)
    assert (found.ranking.test.methods, found.ranking.test.blocks, found.dropped_blocks) == (4, 6, 0)
    scores = pd.DataFrame({f"m{i}": np.arange(6) + 3.0 * i for i in range(5)})
    scores.loc[5, ["m1", "m2", "m3"]] = np.nan  # one block that most lack: all methods, five blocks
    found = diagrams.diagram_of(frame_of(scores))
    assert found is not None
    assert (found.left_out, found.ranking.test.blocks, found.dropped_blocks) == ((), 5, 1)
    assert diagrams.diagram_of(frame_of(scores[["m0", "m1"]])) is None
    assert diagrams.diagram_of(frame_of(scores.iloc[:1])) is None


def test_help_and_kinds_agree() -> None:
    text = (ROOT / "analysis" / "commands.py").read_text(encoding="utf-8")
    assert all(kind in text for kind in KINDS)
    assert json.dumps(list(KINDS)) == json.dumps(figures.chosen_kinds(None))
