"""Noise models for labels: named ways to give training items wrong labels, with realised rate, digest and what the noise did.

Named semantics, never one "noise" (specs/protocol-noisy-labels.md section 3):

``nested-symmetric``
    Default of our protocols for single labels. The first ``floor(rate * n)`` items of one permutation per seed get one class drawn
    evenly from the OTHER classes; the draw belongs to the item, not to the rate. So the realised rate is exact, and what is wrong
    at a rate is wrong in the same way at every higher one.
``symmetric``
    RSHNL, NIRNL: ``int(rate * n)`` items get as many distinct classes as they had, drawn evenly from all classes, the true ones
    included (option ``include_true: false`` leaves these out as far as the others suffice): about ``rate * (1 - 1/K)`` of single
    labels are really wrong.
``per-modality-symmetric``
    MRL: the same for each modality by itself, so that image and text of an item may have different labels; option
    ``phantom: true`` draws from K + 1 classes, of which the last does not exist, as the released code does; labels then have K + 1
    columns.
``asymmetric``
    NIRNL, MRL: half of the classes (chosen by a permutation) are taken for a class of the other half; the others stay. About
    ``rate / 2`` of the items are wrong. Option ``per_modality: true`` chooses items for each modality by itself.
``multilabel-flip``
    NRCH, MGSH, default for several labels: in the first ``floor(rate * n)`` rows of one permutation per seed one label is lost and
    one that was not there is gained. The other labels of the row stay right.
``replay``
    Labels of a file, ``.npy`` or a named array of an ``.npz``. True labels in it are refused at any rate but 0.

A realisation depends on (data set, noise model, seed), neither on the method nor, as far as the model allows, on the rate. All draws
are raw Philox words, so that they do not change with library versions: permutations and choices by their order, numbers below a
bound by the upper half of a word times the bound.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .files import read_npy, read_npz
from .noise import Words
from .types import DataError

ENTRY_POINT_GROUP = "nocobench.label_noise"
# Relations of pairs of items are counted over the first so many items.
MOST_RELATED = 5_000
_ROWS_AT_ONCE = 512

Labels = np.ndarray
LabelNoise = Callable[..., tuple[Labels, Labels]]
"""``model(labels, rate, words, **options) -> (labels of images, labels of texts)``, the same array twice where noise is shared."""


@dataclass(frozen=True)
class LabelNoiseRealisation:
    """Noisy labels.

    Attributes:
        labels: uint8 ``[n, n_classes]`` that images are given with.
        text_labels: the same array, unless the model treats each modality by itself.
        is_noisy: bool ``[n]``: the row differs from the truth in either modality.
        nominal_rate: what was asked for.
        realised_rate: share of rows that differ, the mean over the modalities.
        digest: sha256 of shape and bytes of the labels, followed by those of the texts where they differ from the images'.
        facts: ``still_true`` = share of noisy rows that keep a true label (0 without noisy rows); ``wrong_entries`` = share of given labels
            that are wrong; ``wrong_affinity`` = share of pairs of (the first 5,000) items whose relation, share a label or not, is wrong.
            Each over both modalities where these differ.
    """

    labels: np.ndarray
    text_labels: np.ndarray
    is_noisy: np.ndarray
    nominal_rate: float
    realised_rate: float
    digest: str
    facts: Mapping[str, float]


@dataclass(frozen=True)
class LabelWords(Words):
    """Random words of one (data set, noise model, seed), apart from those of pair noise; each purpose has its own."""

    def raw(self, n: int, purpose: str) -> np.ndarray:
        """``n`` words uint64."""
        text = f"label noise|{self.dataset}|{self.model}|{self.seed}|{purpose}"
        key = np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], dtype="<u8")
        return np.random.Philox(key=key).random_raw(n)

    def permutation(self, n: int, purpose: str) -> np.ndarray:
        """A permutation of ``0..n-1``, int64."""
        return np.argsort(self.raw(n, purpose), kind="stable").astype(np.int64)

    def keys(self, shape: tuple[int, int], purpose: str) -> np.ndarray:
        """Words by which the entries of a table are ordered at random, uint64 ``shape``."""
        return self.raw(shape[0] * shape[1], purpose).reshape(shape)


_models: dict[str, LabelNoise] = {}
_exact: set[str] = set()


def register_label_noise(name: str, exact: bool = False) -> Callable[[LabelNoise], LabelNoise]:
    """Decorator; refuses a second model under a known name.

    Args:
        name: of the model.
        exact: the model promises to change exactly ``floor(rate * n)`` rows; a realisation that does not is refused.
    """

    def add(model: LabelNoise) -> LabelNoise:
        if name in _models:
            raise DataError(
                f"label noise {name!r} exists twice: {_models[name].__module__} and {model.__module__}; rename one"
            )
        _models[name] = model
        if exact:
            _exact.add(name)
        return model

    return add


def names() -> list[str]:
    """All models of label noise, built in and installed."""
    return sorted({*_models, *(point.name for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP))})


def realise(
    model: str, dataset_name: str, labels: np.ndarray, rate: float, seed: int, **options: object
) -> LabelNoiseRealisation:
    """Draw the label noise of one run.

    Args:
        model: a registered name.
        dataset_name: names the random words.
        labels: uint8 ``[n, n_classes]`` of 0 and 1, the true labels.
        rate: nominal share of items in [0, 1].
        seed: names the random words.
        options: of the model.

    Raises:
        DataError: unknown model or option, impossible rate, labels that are none, a rate at which an exact model would change
            nothing, or an unusable file.
    """
    truth = _checked(dataset_name, labels)
    if rate is None or not 0 <= rate <= 1:
        raise DataError(f"label noise rate {rate} is not a number from 0 to 1; give a share such as 0.4")
    function = _model(model)
    _check_options(model, function, options)
    sides = _sides(model, function(truth, float(rate), LabelWords(dataset_name, model, seed), **options), truth)
    wrong = [_differs(side, truth) for side in sides]
    if model in _exact:
        _require_exact(model, float(rate), wrong)
    return LabelNoiseRealisation(
        labels=sides[0],
        text_labels=sides[-1],
        is_noisy=np.logical_or.reduce(wrong),
        nominal_rate=float(rate),
        realised_rate=float(np.mean(wrong)),
        digest=_digest(sides),
        facts=_facts(sides, wrong, truth),
    )


def _checked(dataset: str, labels: np.ndarray) -> np.ndarray:
    """A copy that no model can change."""
    truth = np.asarray(labels)
    if truth.ndim != 2 or len(truth) == 0 or truth.shape[1] < 2:
        raise DataError(
            f"{dataset}: labels of shape {truth.shape} cannot be made noisy; give one row per item with a column for each of "
            "at least two classes"
        )
    if not _is_binary(truth):
        raise DataError(
            f"{dataset}: labels of type {truth.dtype} hold more than 0 and 1; give 1 where an item has the class, else 0"
        )
    truth = np.array(truth, dtype=np.uint8, order="C")
    truth.setflags(write=False)
    return truth


def _is_binary(table: np.ndarray) -> bool:
    return table.dtype.kind in "biuf" and bool(np.isin(table, (0, 1)).all())


def _sides(model: str, drawn: object, truth: np.ndarray) -> list[np.ndarray]:
    """The labels of images and of texts, or those of both; refuses what a model of somebody else may return instead."""
    if not isinstance(drawn, tuple) or len(drawn) != 2:
        raise DataError(
            f"label noise {model!r} returned {type(drawn).__name__}; it must return the labels of images and those of texts"
        )
    sides = [np.asarray(side) for side in (drawn[:1] if drawn[0] is drawn[1] else drawn)]
    for side in sides:
        wide = side.ndim == 2 and len(side) == len(truth) and side.shape[1] >= truth.shape[1]
        if not wide or side.shape != sides[0].shape or not _is_binary(side):
            raise DataError(
                f"label noise {model!r} returned {side.dtype} of shape {side.shape} for labels of shape {truth.shape}; "
                "it must return rows of 0 and 1, one per item"
            )
    return [np.array(side, dtype=np.uint8, order="C") for side in sides]


def _promised(rate: float, n: int) -> int:
    """``floor(rate * n)`` of the rate as it is written: 0.29 of 100 are 29."""
    return math.floor(rate * n + 1e-9)


def _require_exact(model: str, rate: float, wrong: list[np.ndarray]) -> None:
    n = len(wrong[0])
    for rows in wrong:
        if rows.sum() != _promised(rate, n):
            raise DataError(
                f"label noise {model!r} changed {rows.sum()} of {n} items instead of {_promised(rate, n)}; the model is at fault, mend it"
            )
    if rate > 0 and not wrong[0].any():
        raise DataError(
            f"label noise {model!r} at rate {rate:g} changes none of {n} items; take rate 0 or one of at least 1/{n}"
        )


def _model(name: str) -> LabelNoise:
    if name not in _models:
        for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
            if point.name == name:
                _models[name] = point.load()
    if name not in _models:
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise DataError(f"unknown label noise {name!r}{hint} Known: {', '.join(names())}")
    return _models[name]


def _check_options(name: str, model: LabelNoise, options: Mapping[str, object]) -> None:
    known = dict(list(inspect.signature(model).parameters.items())[3:])
    for option, value in options.items():
        if option not in known:
            has = f"its options are {', '.join(known)}" if known else "it has none"
            raise DataError(f"label noise {name!r} has no option {option!r}; {has}")
        wanted = type(known[option].default)
        if wanted in (bool, str) and not isinstance(value, wanted):
            kind = "true or false" if wanted is bool else "a text"
            raise DataError(f"option {option!r} of label noise {name!r} is {value!r}; give {kind}")


def _differs(side: np.ndarray, truth: np.ndarray) -> np.ndarray:
    width = truth.shape[1]
    return (side[:, :width] != truth).any(1) | side[:, width:].any(1)


def _digest(sides: list[np.ndarray]) -> str:
    total = hashlib.sha256()
    for side in sides:
        total.update(f"{side.shape}".encode())
        total.update(np.ascontiguousarray(side).tobytes())
    return total.hexdigest()


def _facts(sides: list[np.ndarray], wrong: list[np.ndarray], truth: np.ndarray) -> dict[str, float]:
    width = truth.shape[1]
    keeps = [(side[:, :width] & truth).any(1) for side in sides]
    noisy = sum(int(rows.sum()) for rows in wrong)
    given = sum(int(side.sum()) for side in sides)
    right = sum(int((side[:, :width] & truth).sum()) for side in sides)
    return {
        "still_true": sum(int((k & w).sum()) for k, w in zip(keeps, wrong, strict=True)) / max(1, noisy),
        "wrong_entries": (given - right) / max(1, given),
        "wrong_affinity": float(np.mean([wrong_affinity(side, truth) for side in sides])),
    }


def wrong_affinity(given: np.ndarray, truth: np.ndarray) -> float:
    """Share of pairs of different items whose relation, share a label or not, differs between two label tables; of the first 5,000."""
    n = min(len(truth), MOST_RELATED)
    if n < 2:
        return 0.0
    noisy, true = given[:n].astype(np.float32), truth[:n].astype(np.float32)
    changed = 0
    for start in range(0, n, _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        different = ((noisy[rows] @ noisy.T) > 0) != ((true[rows] @ true.T) > 0)
        inside = np.arange(start, min(start + _ROWS_AT_ONCE, n))
        different[np.arange(len(inside)), inside] = False
        changed += int(different.sum())
    return changed / (n * (n - 1))


def _require_single(labels: np.ndarray, model: str) -> np.ndarray:
    if not (labels.sum(1) == 1).all():
        raise DataError(f"label noise {model!r} is for one label per item; take 'multilabel-flip' for several")
    return labels.argmax(1)


def _below(words: np.ndarray, high: int) -> np.ndarray:
    """Numbers in ``[0, high)`` from 64-bit words by multiplying their upper halves; the bias is below ``high / 2^32``."""
    return ((words >> np.uint64(32)) * np.uint64(high) >> np.uint64(32)).astype(np.int64)


@register_label_noise("nested-symmetric", exact=True)
def nested_symmetric(labels: np.ndarray, rate: float, words: LabelWords) -> tuple[Labels, Labels]:
    """See the module docstring."""
    classes = _require_single(labels, "nested-symmetric")
    n, n_classes = labels.shape
    step = 1 + _below(words.raw(n, "classes"), n_classes - 1)
    chosen = words.permutation(n, "items")[: _promised(rate, n)]
    noisy = classes.copy()
    noisy[chosen] = (classes[chosen] + step[chosen]) % n_classes
    result = _one_hot(noisy, n_classes)
    return result, result


@register_label_noise("symmetric")
def symmetric(labels: np.ndarray, rate: float, words: LabelWords, include_true: bool = True) -> tuple[Labels, Labels]:
    """See the module docstring."""
    result = _redrawn(labels, rate, words, "", include_true, labels.shape[1])
    return result, result


@register_label_noise("per-modality-symmetric")
def per_modality_symmetric(
    labels: np.ndarray, rate: float, words: LabelWords, phantom: bool = False
) -> tuple[Labels, Labels]:
    """See the module docstring; with ``phantom`` the labels have one column more."""
    width = labels.shape[1] + phantom
    images, texts = (_redrawn(labels, rate, words, side, True, width) for side in ("image ", "text "))
    return images, texts


def _redrawn(
    labels: np.ndarray, rate: float, words: LabelWords, side: str, include_true: bool, width: int
) -> np.ndarray:
    """``int(rate n)`` rows get as many distinct labels as they had, the first ones of a random order of the classes."""
    n = len(labels)
    chosen = words.permutation(n, f"{side}items")[: int(rate * n)]
    padded = np.pad(labels, ((0, 0), (0, width - labels.shape[1])))
    order = words.keys((n, width), f"{side}classes")[chosen]
    if not include_true:
        # True classes come last, in random order too: only a row with more labels than false classes keeps any.
        order = order >> np.uint64(1) | padded[chosen].astype(np.uint64) << np.uint64(63)
    place = np.argsort(np.argsort(order, axis=1, kind="stable"), axis=1, kind="stable")
    result = padded.copy()
    result[chosen] = place < labels[chosen].sum(1, dtype=np.int64, keepdims=True)
    return result


@register_label_noise("asymmetric")
def asymmetric(labels: np.ndarray, rate: float, words: LabelWords, per_modality: bool = False) -> tuple[Labels, Labels]:
    """See the module docstring."""
    _require_single(labels, "asymmetric")
    mapping = halves_swapped(words.permutation(labels.shape[1], "classes"))

    def one(side: str) -> np.ndarray:
        chosen = words.permutation(len(labels), f"{side}items")[: int(rate * len(labels))]
        result = labels.copy()
        result[chosen] = _one_hot(mapping[labels[chosen].argmax(1)], labels.shape[1])
        return result

    if per_modality:
        return one("image "), one("text ")
    shared = one("")
    return shared, shared


def halves_swapped(order: np.ndarray) -> np.ndarray:
    """``mapping [K]``: class ``order[j]`` of the first half becomes ``order[j + K//2]``; the others stay (NIRNL, MRL)."""
    mapping = np.arange(len(order))
    half = len(order) // 2
    mapping[order[:half]] = order[half : 2 * half]
    return mapping


@register_label_noise("multilabel-flip", exact=True)
def multilabel_flip(labels: np.ndarray, rate: float, words: LabelWords) -> tuple[Labels, Labels]:
    """See the module docstring; a row without labels only gains one, a row with all labels only loses one."""
    n, n_classes = labels.shape
    order = words.keys((n, n_classes), "entries")
    lost = np.where(labels > 0, order, np.uint64(0)).argmax(1)
    gained = np.where(labels == 0, order, np.uint64(0)).argmax(1)
    chosen = words.permutation(n, "items")[: _promised(rate, n)]
    result = labels.copy()
    loses, gains = labels[chosen].any(1), (labels[chosen] == 0).any(1)
    result[chosen[loses], lost[chosen[loses]]] = 0
    result[chosen[gains], gained[chosen[gains]]] = 1
    return result, result


@register_label_noise("replay")
def replay(
    labels: np.ndarray, rate: float, words: LabelWords, file: str = "", key: str = "", sha256: str = ""
) -> tuple[Labels, Labels]:
    """Labels of a file: class numbers ``[n]`` or rows of 0 and 1 ``[n, n_classes]``; ``file`` and ``key`` may contain ``{rate}``.

    Raises:
        DataError: a file or array that is missing, changed, of another shape, or that holds no labels.
    """
    path = Path(file.replace("{rate}", f"{rate:g}")).expanduser()
    if not file or not path.is_file():
        raise DataError(f"{path if file else 'replay'}: no such file of noisy labels; give its path as option 'file'")
    if sha256 and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise DataError(f"{path}: the sha256 differs from the protocol's {sha256[:12]}...; get the file again")
    found = _read_labels(path, key.replace("{rate}", f"{rate:g}"))
    if found.shape == (len(labels),) and found.dtype.kind in "iu" and 0 <= found.min() <= found.max() < labels.shape[1]:
        found = _one_hot(found, labels.shape[1])
    if found.shape != labels.shape or not _is_binary(found):
        raise DataError(
            f"{path}: {found.dtype} of shape {found.shape} is no table of labels for {labels.shape[0]} items "
            f"and {labels.shape[1]} classes; take the file made for this data set"
        )
    if rate > 0 and np.array_equal(found, labels):
        raise DataError(
            f"{path}: holds the true labels, although the rate is {rate:g}; name the file and array of noisy ones"
        )
    result = found.astype(np.uint8)
    return result, result


def _read_labels(path: Path, key: str) -> np.ndarray:
    if path.suffix == ".npz":
        return read_npz(path, [key])[key]
    if key:
        raise DataError(f"{path}: holds a single array without a name, but option 'key' is {key!r}; leave it out")
    return read_npy(path)


def _one_hot(classes: np.ndarray, n_classes: int) -> np.ndarray:
    return np.eye(n_classes, dtype=np.uint8)[classes]
