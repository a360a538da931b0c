"""One registry of data sets: files of this folder, installed packages (entry points ``nocobench.datasets``), and folders on disk.

A function ``load(data_root, **options)`` that is decorated with ``@register_dataset`` makes the data set known that its file is named
after; ``@register_dataset(name="my-set")`` names it otherwise, which allows several data sets in one file. Looking one up imports only its
own file.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import importlib.metadata
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from .features import check_dataset
from .types import DataError, PairDataset

FOLDER = Path(__file__).resolve().parent
ENTRY_POINT_GROUP = "nocobench.datasets"
Loader = Callable[..., PairDataset]
Preview = Callable[[Path], str]


@dataclass(frozen=True)
class _Registered:
    loader: Loader
    preview: Preview | None


_registered: dict[str, _Registered] = {}


@overload
def register_dataset(loader: Loader) -> Loader: ...
@overload
def register_dataset(*, name: str | None = None, preview: Preview | None = None) -> Callable[[Loader], Loader]: ...
def register_dataset(
    loader: Loader | None = None, *, name: str | None = None, preview: Preview | None = None
) -> Loader | Callable[[Loader], Loader]:
    """Decorator of a loader.

    Args:
        loader: ``load(data_root, **options) -> PairDataset``.
        name: of the data set, a literal; default: the file's name.
        preview: ``preview(data_root)`` gives the sentence for lists where loading takes more than a moment, or raises DataError where
            files are missing.

    Raises:
        DataError: two loaders of one name.
    """

    def add(function: Loader) -> Loader:
        chosen = name or function.__module__.rpartition(".")[2]
        known = _registered.get(chosen)
        if known is not None and _place(known.loader) != _place(function):
            raise DataError(
                f"data set {chosen!r} exists twice: in {_place(known.loader)} and in {_place(function)}; rename one"
            )
        _registered[chosen] = _Registered(function, preview)
        return function

    return add if loader is None else add(loader)


def _place(loader: Loader) -> str:
    return f"{loader.__module__}.{loader.__qualname__}"


@functools.cache
def built_in() -> dict[str, str]:
    """Data set -> module of this folder, read from the decorators without importing."""
    return {name: path.stem for path in sorted(FOLDER.glob("*.py")) for name in _names_in(path)}


def _names_in(path: Path) -> list[str]:
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        for mark in getattr(node, "decorator_list", []):
            call = mark if isinstance(mark, ast.Call) else None
            if getattr(call.func if call else mark, "id", "") == "register_dataset":
                given = [word.value for word in (call.keywords if call else []) if word.arg == "name"]
                found.append(str(ast.literal_eval(given[0])) if given else path.stem)
    return found


def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}


def names() -> list[str]:
    """All known data sets; a path to a folder works as a name too."""
    return sorted({*built_in(), *_registered, *_entry_points()})


def default_data_root() -> Path:
    """``$NOCOBENCH_DATA``, else ``../shared/data`` beside the checkout if it exists, else ``~/.cache/nocobench``."""
    if os.environ.get("NOCOBENCH_DATA"):
        return Path(os.environ["NOCOBENCH_DATA"]).expanduser()
    beside = FOLDER.parent.parent / "shared" / "data"
    return beside if beside.is_dir() else Path.home() / ".cache" / "nocobench"


def load(name: str, data_root: Path | None = None, /, **options: Any) -> PairDataset:
    """Load and check a data set.

    Args:
        name: a registered name, or the path of a folder in the folder format (see folder.py).
        data_root: where data files are looked for; default :func:`default_data_root`.
        options: of the loader.

    Raises:
        DataError: unknown name or option, missing files, unusable data; one sentence each.
    """
    if is_path(name):
        options, name = {"path": name} | options, "folder"
    loader = _get(name).loader
    _check_options(loader, name, options)
    try:
        dataset = loader(_root(data_root), **options)
    except MemoryError as error:
        raise DataError(
            f"data set {name!r} does not fit into memory ({error}); take a larger machine or fewer rows"
        ) from error
    check_dataset(dataset)
    return dataset


def is_path(name: str) -> bool:
    """Whether a data set is named by its folder.

    Raises:
        DataError: a path that no folder can have, or of the home folder of nobody.
    """
    try:
        Path(name).expanduser().resolve()
        name.encode()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"data set {name!r} is no usable name or path ({error}); give another one") from error
    return "/" in name or os.sep in name


def describe(name: str, data_root: Path | None = None) -> tuple[bool, str]:
    """Whether the data set can be loaded here, and its remark or the reason why not."""
    try:
        preview = None if is_path(name) else _get(name).preview
        if preview is not None:
            return True, preview(_root(data_root))
        dataset = load(name, data_root)
    except DataError as error:
        return False, str(error)
    sizes = ", ".join(f"{split} {part.n_images:,} x {part.n_captions:,}" for split, part in dataset.splits.items())
    return True, f"{dataset.remark} ({sizes})"


def _root(data_root: Path | None) -> Path:
    return default_data_root() if data_root is None else Path(data_root).expanduser()


def _check_options(loader: Loader, name: str, options: dict[str, Any]) -> None:
    parameters = list(inspect.signature(loader).parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters]
    for option in options:
        if option not in known:
            hint = _nearest(option, known) if known else "; it takes none"
            raise DataError(f"data set {name!r}: unknown option {option!r}{hint}")


def _get(name: str) -> _Registered:
    points = _entry_points()
    if name in built_in() and name in points:
        raise DataError(
            f"data set {name!r} exists twice: built in and in package {points[name].value!r}; uninstall or rename"
        )
    if name not in _registered:
        if name in built_in():
            importlib.import_module(f".{built_in()[name]}", __package__)
        elif name in points:
            _load_entry_point(points[name])
    if name not in _registered:
        raise DataError(f"unknown data set {name!r}{_nearest(name, names())} A path such as ./my_features works too.")
    return _registered[name]


def _load_entry_point(point: importlib.metadata.EntryPoint) -> None:
    try:
        loader = point.load()
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"data set {point.name!r} does not import from {point.value}: {type(error).__name__}: {error}"
        ) from error
    # A package need not use the decorator: the entry point says name and loader already.
    _registered.setdefault(point.name, _Registered(loader, None))


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}."
