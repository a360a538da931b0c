"""The sensitivity table: differences by hand, words by their intervals, and what cannot be compared."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from nocobench.analysis.frame import AnalysisError
from nocobench.analysis.sensitivity import sensitivity, sensitivity_text
from sample_frames import frame_of
from sample_records import make_record
from scipy import stats

DIFFERENCES = (4.0, 5.0, 9.0)


@pytest.fixture
def frame(tmp_path: Path) -> pd.DataFrame:
    """Three seeds at two rates; the variant ``other`` is 4, 5 and 9 points better, a batch of 64 changes nothing on average."""
    records = []
    for seed, more in enumerate(DIFFERENCES):
        for rate in (0.2, 0.6):
            old = 100.0 + 10 * seed - 50 * rate
            records += [
                make_record(old, method="npc", variant="paper", rate=rate, seed=seed),
                make_record(old + more, method="npc", variant="other", rate=rate, seed=seed),
                make_record(old + seed - 1, method="npc", variant="paper", rate=rate, seed=seed, overrides={"batch_size": 64}),
            ]  # fmt: skip
    records.append(make_record(50.0, method="npc", variant="once", rate=0.2, seed=0))
    records.append(make_record(1.0, method="clip", variant="paper", rate=0.2, seed=0))
    return frame_of(tmp_path, records)


def test_differences_by_hand(frame: pd.DataFrame) -> None:
    batch, once, other = sensitivity(frame, "npc@paper")
    assert (batch.changed, once.changed, other.changed) == ("batch size 64", "variant once", "variant other")
    half = float(stats.t.isf(0.025, 2) * stats.tstd(DIFFERENCES) / 3**0.5)
    assert other.change.mean == pytest.approx(6)
    assert (other.change.low, other.change.high) == pytest.approx((6 - half, 6 + half))
    assert (other.blocks, other.change.runs) == (2, 3)
    assert other.score == pytest.approx(110 - 20 + 6)


def test_words_follow_the_intervals(frame: pd.DataFrame) -> None:
    batch, once, other = sensitivity(frame, "npc@paper")
    assert batch.words == "cannot be told apart"
    assert once.words == "too few seeds to tell"
    assert other.words == "cannot be told apart"  # two degrees of freedom: 6 is within the interval's half width of 6.6
    closer = frame.assign(rsum=frame["rsum"].where(frame["variant"] != "other", frame["rsum"] + 3))
    assert sensitivity(closer, "npc@paper")[2].words == "higher"


@pytest.mark.parametrize(
    ("form", "mark"), [("terminal", "variant other"), ("markdown", "| digits"), ("latex", r"\toprule")]
)
def test_text(frame: pd.DataFrame, form: str, mark: str) -> None:
    frame = frame.assign(dataset="digits")
    text = sensitivity_text(frame, "npc@paper", form)
    assert mark in text
    assert "+6.0" in text
    assert "95 % interval" in text


def test_csv_is_read_back(frame: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text(sensitivity_text(frame, "npc@paper", "csv"))
    assert pd.read_csv(path)["change"].tolist() == pytest.approx([0, -40, 6])


@pytest.mark.parametrize(
    ("method", "words"), [("hana", "no finished run of 'hana'"), ("clip", "no run of 'clip' differs")]
)
def test_nothing_to_compare(frame: pd.DataFrame, method: str, words: str) -> None:
    with pytest.raises(AnalysisError, match=words):
        sensitivity(frame, method)
