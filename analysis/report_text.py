"""The summary of the page in plain sentences; their wording follows the numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from ..results.measures import measure as measure_named
from .report_rows import PageRow
from .report_statistics import Group
from .significance import Comparison

MOST_NAMES = 12  # of methods in one sentence
MOST_REASONS = 5
FEW_SEEDS = 3
TASKS = {
    "pair-retrieval": "Retrieval learnt from mismatched pairs",
    "label-hashing": "Retrieval learnt from wrong labels",
}


@dataclass(frozen=True)
class Paragraph:
    """A heading and its sentences; what stands ``aside`` is shown on demand."""

    title: str
    sentences: tuple[str, ...]
    aside: bool = False


def summary(frame: pd.DataFrame, rows: Sequence[PageRow], groups: Sequence[Group]) -> list[Paragraph]:
    """What the records say, group by group, then what is missing and what is not what it seems."""
    first = {group.task: group for group in reversed(groups) if group.table is not None}
    told = [
        Paragraph(_group_title(group), tuple(_group_sentences(group)), aside=first.get(group.task) is not group)
        for group in groups
    ]
    told.append(Paragraph("What is missing", tuple(_missing(frame, rows))))
    return [*told, Paragraph("What the numbers are not", tuple(_cautions(frame)))]


def counted(n: int, noun: str) -> str:
    """``1 seed``, ``5 seeds``, ``1,982 records``."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def listed(names: Sequence[str], most: int = MOST_NAMES) -> str:
    """``a, b and c``; beyond ``most`` names, how many more."""
    shown = list(names[:most])
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def _group_title(group: Group) -> str:
    return f"{TASKS.get(group.task, group.task)}: {group.title}"


def _group_sentences(group: Group) -> Iterator[str]:
    if group.table is None or group.report is None:
        yield f"Nothing is compared here: {group.problem}."
        return
    pairs = group.report.pairs
    yield _what(group)
    best, sentence = _best(group)
    yield sentence
    yield from _told_apart(group, best)
    if len(pairs) > 1:
        yield f"Of all {counted(len(pairs), 'pair')} of methods, {_how_many(pairs)}."
    if group.left_out:
        yield (
            f"{counted(len(group.left_out), 'further variant')} (ablations) {'is' if len(group.left_out) == 1 else 'are'} in the table "
            "of results and not in these comparisons; name variants with --methods to compare them."
        )


def _best(group: Group) -> tuple[str, str]:
    """Of the methods that have runs in the same blocks, as many of both as possible."""
    assert group.table is not None
    table = group.table if group.diagram is None else group.diagram.table
    common, best = table.complete_blocks(), table.contenders[0]
    oracle = ", oracles aside," if len(table.contenders) < len(table.methods) else ""
    if len(common):
        among = f"Of the {counted(len(table.methods), 'method')} with runs in the same {counted(len(common), 'block')}{oracle}"
        mean = common.mean()[best]
    else:
        among, mean = f"Over each method's own blocks, for they share none{oracle}", table.blocks().mean()[best]
    label = measure_named(table.measure).label
    return best, f"{among} {table.labels[best]} has the best mean {label}: {mean:.1f}."


def _what(group: Group) -> str:
    assert group.table is not None
    blocks = group.table.blocks()
    names = [str(name) for name in blocks.index.unique("dataset")]
    seeds = sorted(set(group.records.groupby("dataset")["seed"].nunique()))
    words = counted(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    text = (
        f"{counted(len(group.table.methods), 'method')} on {counted(len(names), 'data set')} ({listed(names)}), "
        f"{counted(len(blocks), 'block')} (a block is a data set, a noise model and a rate), {words}."
    )
    if len(names) == 1:
        text += f" With one data set, nothing here says that a difference holds on other data than {names[0]}."
    if seeds[0] < FEW_SEEDS:
        text += f" {counted(seeds[0], 'seed').capitalize()} can show a difference, and prove none."
    return text


def _how_many(pairs: Sequence[Comparison]) -> str:
    """Both verdicts; they are one where there is a single block."""
    here, further = sum(pair.told_apart_here() for pair in pairs), sum(map(_apart_beyond, pairs))
    words = f"{here or 'none'} can be told apart on these data sets and rates, {len(pairs) - here} cannot"
    return words + (f"; beyond these, {further or 'none'} can" if _goes_beyond(pairs) else "")


def _goes_beyond(pairs: Sequence[Comparison]) -> bool:
    return any(pair.interval.over != "seeds" for pair in pairs)


def _apart_beyond(pair: Comparison) -> bool:
    """Who cannot be told apart here is not said to differ elsewhere, whatever the second interval says."""
    return pair.told_apart() and pair.told_apart_here()


def _told_apart(group: Group, best: str) -> Iterator[str]:
    """The best against each of the others that are no oracles: on these blocks, then beyond them."""
    assert group.table is not None
    assert group.report is not None
    table, pairs = group.table, [pair for pair in group.report.pairs if best in (pair.first, pair.second)]
    others = {pair.second if pair.first == best else pair.first: pair for pair in pairs}
    others = {other: pair for other, pair in others.items() if other in table.contenders}

    def labels(apart: Callable[[Comparison], bool], ahead: bool | None = None) -> list[str]:
        """Of those of which both are true; a method that is best on the blocks of all may be behind on those of two."""
        return [
            table.labels[other]
            for other, pair in others.items()
            if apart(pair)
            and ahead in (None, (pair.interval.mean > 0) == (table.higher_is_better == (pair.first == best)))
        ]

    better, worse = (labels(Comparison.told_apart_here, ahead) for ahead in (True, False))
    tied = labels(lambda pair: not pair.told_apart_here())
    if better:
        yield f"On these data sets and rates, for whatever seeds, it is better than {listed(better)}."
    if worse:
        yield f"On what it has in common with them, it is worse than {listed(worse)}."
    if tied:
        yield f"{table.labels[best]} cannot be told apart from {listed(tied)}."
    if tied and not better:
        yield f"So nothing here shows that {table.labels[best]} is better than any of the others."
    if _goes_beyond(list(others.values())):
        over = next(pair.interval.over for pair in others.values() if pair.interval.over != "seeds")
        what = "other data sets" if over == "data sets" else "other rates of this data set"
        further = labels(_apart_beyond)
        verdict = f"can be told apart from {listed(further)}" if further else "cannot be told apart from any of them"
        yield f"Beyond these ({what}), it {verdict}."


def _missing(frame: pd.DataFrame, rows: Sequence[PageRow]) -> Iterator[str]:
    expected = sum(row.entry.expected for row in rows)
    finished = int((frame["status"] == "done").sum())
    yield f"{counted(len(frame), 'record')}, {finished:,} of them finished."
    lacking = expected - sum(len(row.records) for row in rows)
    if lacking > 0:
        yield (
            f"{counted(lacking, 'run')} of the grids that these records span {'has' if lacking == 1 else 'have'} no record: the table of "
            "results marks the places."
        )
    elif finished == len(frame):
        yield "No run of the grids that these records span is missing, and none failed."
    unfinished = frame[frame["status"] != "done"]
    reasons = unfinished.groupby(["status", "reason"]).size().sort_values(ascending=False, kind="stable")
    for key, count in list(reasons.items())[:MOST_REASONS]:
        status, reason = map(str, key) if isinstance(key, tuple) else ("", "")
        yield f"{counted(int(count), 'run')} {status.replace('_', ' ')}: {reason}."
    if len(reasons) > MOST_REASONS:
        yield f"{counted(len(reasons) - MOST_REASONS, 'further reason')} can be found in the table of results."
    yield from _stale(frame)
    broken = frame.attrs.get("broken", ())
    if broken:
        yield f"{counted(len(broken), 'file')} could not be used, the first because: {broken[0][1]}."


def _stale(frame: pd.DataFrame) -> Iterator[str]:
    done = frame[frame["status"] == "done"]
    if frame["stale"].isna().all():
        yield "Whether the source code has changed since was not checked (the command `list runs` does)."
    elif done["stale"].eq(True).any():
        yield f"{counted(int(done['stale'].eq(True).sum()), 'run')} made by other source code than today's (stale)."
    names = done["method"] + "@" + done["variant"] + " on " + done["dataset"]
    mixed = sorted(str(name) for name, part in done.groupby(names) if part["sources"].map(_without_noise).nunique() > 1)
    if mixed:
        yield f"Made by several versions of the source code, so that their seeds may not belong together: {listed(mixed)}."


def _without_noise(sources: object) -> str:
    """The method's own code and the engine's: what must not differ between the seeds of one mean."""
    known = json.loads(sources) if isinstance(sources, str) and sources else {}
    return json.dumps({name: known.get(name) for name in ("method", "engine", "metrics")})


def _cautions(frame: pd.DataFrame) -> Iterator[str]:
    def labels(flag: str) -> list[str]:
        return sorted(
            {str(label) for label, flags in zip(frame["label"], frame["flags"], strict=True) if flag in flags}
        )

    made = labels("reconstruction")
    if made:
        yield (
            f"Reconstructions, written from descriptions because there is no complete official code: {listed(made)}. Their numbers say "
            "nothing about the originals."
        )
    own = labels("own-generalisation")
    if own:
        yield f"Generalisations by this suite, no published methods: {listed(own)}."
    oracles = labels("oracle")
    if oracles:
        yield f"Told what is clean, an upper bound that does not compete: {listed(oracles)}."
    granted = labels("clean-meta-set")
    if granted:
        yield f"Learn also from verified clean data that others do not get: {listed(granted)}."
    modified = int(frame["git_dirty"].eq(True).sum())
    if modified:
        yield f"{counted(modified, 'record')} from a modified working tree, which nobody else has."
    machines = frame.loc[frame["machine"].astype(bool), "machine"].nunique()
    if machines > 1:
        yield f"The records come from {counted(int(machines), 'kind')} of machine or Python: compare seconds with care."
    changed = sorted({str(row.protocol) for row in frame.itertuples() if row.overrides})
    if changed:
        yield f"Protocols that the command line changed for some runs (kept apart in every table): {listed(changed)}."
