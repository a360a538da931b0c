r"""A methods section from records: what was run, on which data and noise, how models were chosen and compared, with which versions.

Everything stated is in the records or in the protocol's snapshot beside them; what differs between runs is said to differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from .captions import searched
from .frame import TABLE_KEYS
from .latex import escape_latex
from .stored import unique_labels
from .tables import FLAG_NOTES

# Facts of a protocol that are shared by its data sets and noise models.
_CONDITIONS = [
    "task",
    "protocol",
    "version",
    "overrides",
    "track",
    "backbone",
    "selection",
    "gallery",
    "database",
    "database_codes",
]


def methods_text(frame: pd.DataFrame) -> str:
    r"""LaTeX paragraphs, ``\paragraph{...}`` each; needs no package."""
    found = {
        "Protocol": " ".join(_protocols(frame)),
        "Data": _data(frame),
        "Noise": " ".join(_noise(frame)),
        "Seeds": _seeds(frame),
        "Methods": _methods(frame),
        "Statistics": _statistics(frame),
        "Software and hardware": _versions(frame),
        "Completeness": _completeness(frame),
    }
    return "\n\n".join(f"\\paragraph{{{head}.}} {escape_latex(text)}" for head, text in found.items()) + "\n"


def _protocols(frame: pd.DataFrame) -> Iterator[str]:
    for keys, part in frame.groupby(_CONDITIONS, sort=True, dropna=False):
        named: dict[str, Any] = dict(zip(_CONDITIONS, keys, strict=True))
        changed = json.loads(named["overrides"]) if named["overrides"] else {}
        words = ", ".join(f"{name} = {json.dumps(value)}" for name, value in sorted(changed.items()))
        yield (
            f"Runs follow protocol {named['protocol']}, version {named['version']}, of NoCoBench "
            f"({f'changed: {words}' if words else 'unchanged'}; track {named['track']}; backbone {named['backbone']}{_budget(part)}). "
            f"Tested model: {named['selection']}. Test: {searched(named)}."
        )


def _budget(part: pd.DataFrame) -> str:
    """From the snapshot beside the records; nothing where there is none."""
    path = Path(part["path"].iloc[0]).parents[3] / "protocol.json"
    try:
        resolved = json.loads(path.read_bytes())["resolved"]
        budget, rule = resolved["budget"], resolved["budget"]["optimizer"]
        return (
            f"; {budget['epochs']} epochs, batch size {budget['batch_size']}, {rule['rule']} with learning rate "
            f"{rule['learning_rate']:g} and {rule['schedule']['kind']} schedule, unless a method brings its own"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _data(frame: pd.DataFrame) -> str:
    sentences = []
    for dataset, part in frame.groupby("dataset", sort=True):
        files: dict[str, set[str]] = {}
        for text in part["data"].unique():
            for name, digest in (json.loads(text) if text else {}).items():
                files.setdefault(name, set()).add(digest)
        words = [f"{name} {' or '.join(sorted(digest[:12] for digest in files[name]))}" for name in sorted(files)]
        sentences.append(
            f"{dataset} (sha256 of its files: {', '.join(words)})" if words else f"{dataset} (no digests recorded)"
        )
    return f"Data sets: {'; '.join(sentences)}."


def _noise(frame: pd.DataFrame) -> Iterator[str]:
    for (noise, level), part in frame.groupby(["noise", "noise_level"], sort=True):
        rates = sorted(part["rate"].dropna().unique())
        if not rates:
            yield f"Noise is that of the data ({level})."
            continue
        yield f"Noise model {noise} ({level}) at nominal rates {_listed([f'{rate:g}' for rate in rates])}."
        done = part[part["realised_rate"].notna()]
        off = (done["realised_rate"] - done["nominal_rate"]).abs()
        if len(done):
            yield (
                f"The realised rate differs from the nominal one by at most {off.max():.4f}."
                if off.max() > 0
                else "Realised rates equal the nominal ones."
            )
    drawn = frame[frame["noise_digest"].notna() & frame["rate"].notna()].groupby(["dataset", "noise", "rate", "seed"])[
        "noise_digest"
    ]
    if len(drawn):
        several, where = int((drawn.nunique() > 1).sum()), "combinations of data set, rate and seed"
        if several:
            yield f"In {several} of {drawn.ngroups} {where} methods got different noise (digests in results.csv)."
        else:
            yield f"In each of the {drawn.ngroups} {where} all methods get the same noise (digests in results.csv)."


def _seeds(frame: pd.DataFrame) -> str:
    done = frame[frame["status"] == "done"]
    counts = done.groupby([*TABLE_KEYS, "rate", "bits", "method", "variant"], dropna=False)["seed"].nunique()
    low, high = int(counts.min()), int(counts.max())
    seeds = _listed([str(seed) for seed in sorted(done["seed"].unique())])
    return f"{low if low == high else f'{low} to {high}'} seeds per method and setting ({seeds}); a seed fixes all random draws of a run."


def _methods(frame: pd.DataFrame) -> str:
    labels = unique_labels(zip(frame["method"], frame["variant"], frame["label"], strict=True))
    flags: dict[str, set[str]] = {}
    for name, given in zip(frame["method"] + "@" + frame["variant"], frame["flags"], strict=True):
        flags.setdefault(name, set()).update(given)
    sentences = [f"Compared are {_listed([f'{labels[name]} [{name}]' for name in sorted(labels)])}."]
    for flag in sorted(set().union(*flags.values()) - {"control"}):
        marked = _listed([f"[{name}]" for name in sorted(flags) if flag in flags[name]])
        sentences.append(f"{marked}: {FLAG_NOTES.get(flag, flag)}.")
        if flag == "reconstruction":
            sentences.append("Numbers of a reconstruction say nothing about the original code.")
    return " ".join(sentences)


def _statistics(frame: pd.DataFrame) -> str:
    single = frame[frame["status"] == "done"]["seed"].nunique() == 1
    spread = "Tables give single runs, so that no spread is known." if single else (
        "Tables give the mean and, after ±, the sample standard deviation over seeds."
    )  # fmt: skip
    return (
        f"{spread} Best and second are marked by the mean; a dagger, explained in each caption, says where the records cannot tell a "
        "method from the best. Diagrams of average ranks use Friedman's test and Nemenyi's critical difference over blocks (a noise rate "
        "of a data set), which take blocks for independent although rates of one data set are not."
    )


def _versions(frame: pd.DataFrame) -> str:
    packages = _values(frame, "packages")
    machine = _values(frame, "machine")
    python = machine.pop("python", ["unknown"])
    commits = [commit[:12] for commit in sorted(set(frame["git_commit"])) if commit]
    dirty = int(frame["git_dirty"].eq(True).sum())
    listed = [f"{name} {_either(versions)}" for name, versions in packages.items()]
    return (
        f"NoCoBench at {f'commit {_either(commits)}' if commits else 'an unknown commit'}"
        + (f" ({dirty} of {len(frame)} runs with uncommitted changes)" if dirty else "")
        + f"; Python {_either(python)}; {', '.join(listed) or 'packages not recorded'}. Runs were made on "
        f"{', '.join(f'{name} {_either(values)}' for name, values in machine.items()) or 'an unknown machine'}; device "
        f"{_either(sorted(set(frame['device'])))}; {_either(sorted({str(n) for n in frame['threads']}))} thread(s) per process."
    )


def _values(frame: pd.DataFrame, column: str) -> dict[str, list[str]]:
    """Every value of each entry of a column of mappings."""
    found: dict[str, set[str]] = {}
    for text in frame[column].unique():
        for name, value in (json.loads(text) if text else {}).items():
            found.setdefault(name, set()).add(str(value))
    return {name: sorted(found[name]) for name in sorted(found)}


def _completeness(frame: pd.DataFrame) -> str:
    open_ = frame[frame["status"] != "done"]
    if open_.empty:
        return f"All {len(frame)} runs are finished."
    reasons = [
        f"{len(part)} {str(status).replace('_', ' ')} ({reason})"
        for (status, reason), part in open_.groupby(["status", "reason"])
    ]
    return f"{len(frame) - len(open_)} of {len(frame)} runs are finished; not: {'; '.join(reasons)}."


def _either(values: Sequence[str]) -> str:
    return " or ".join(values)


def _listed(values: Sequence[str]) -> str:
    return " and ".join([", ".join(values[:-1]), values[-1]] if len(values) > 1 else values)
