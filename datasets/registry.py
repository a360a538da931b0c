"""One registry of data sets: files of this folder, installed packages (entry points ``nocobench.datasets``), and folders on disk.

A file ``datasets/<name>.py`` whose function ``load(data_root, **options)`` is decorated with ``@register_dataset`` makes the data set
``<name>`` known. Looking one up imports only its own file.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .features import check_dataset
from .types import DataError, PairDataset

FOLDER = Path(__file__).resolve().parent
ENTRY_POINT_GROUP = "nocobench.datasets"
Loader = Callable[..., PairDataset]

_loaders: dict[str, Loader] = {}


def register_dataset(loader: Loader) -> Loader:
    """Decorator; the data set is named after the file the loader lives in."""
    name = loader.__module__.rpartition(".")[2]
    known = _loaders.get(name)
    if known is not None and known.__module__ != loader.__module__:
        raise DataError(f"data set {name!r} exists twice: in {known.__module__} and {loader.__module__}; rename one")
    _loaders[name] = loader
    return loader


@functools.cache
def built_in() -> tuple[str, ...]:
    """Names of the data sets of this folder, read without importing them."""
    return tuple(path.stem for path in sorted(FOLDER.glob("*.py")) if _registers(path))


def _registers(path: Path) -> bool:
    functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    return any(getattr(mark, "id", "") == "register_dataset" for node in functions for mark in node.decorator_list)


def names() -> list[str]:
    """All known data sets; a path to a folder works as a name too."""
    return sorted(
        {*built_in(), *_loaders, *(point.name for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP))}
    )


def default_data_root() -> Path:
    """``$NOCOBENCH_DATA``, else ``../shared/data`` beside the checkout if it exists, else ``~/.cache/nocobench``."""
    if os.environ.get("NOCOBENCH_DATA"):
        return Path(os.environ["NOCOBENCH_DATA"]).expanduser()
    beside = FOLDER.parent.parent / "shared" / "data"
    return beside if beside.is_dir() else Path.home() / ".cache" / "nocobench"


def load(name: str, data_root: Path | None = None, **options: Any) -> PairDataset:
    """Load and check a data set.

    Args:
        name: a registered name, or the path of a folder in the folder format (see folder.py).
        data_root: where data files are looked for; default :func:`default_data_root`.
        options: of the loader.

    Raises:
        DataError: unknown name or option, missing files, unusable data; one sentence each.
    """
    root = default_data_root() if data_root is None else Path(data_root).expanduser()
    if is_path(name):
        dataset = _loader("folder")(root, path=name, **options)
    else:
        dataset = _call(_loader(name), name, root, options)
    check_dataset(dataset)
    return dataset


def is_path(name: str) -> bool:
    """Whether a data set is named by its folder."""
    return "/" in name or os.sep in name


def _call(loader: Loader, name: str, root: Path, options: dict[str, Any]) -> PairDataset:
    try:
        return loader(root, **options)
    except TypeError as error:
        if "unexpected keyword argument" in str(error):
            raise DataError(
                f"data set {name!r}: {str(error).partition('() ')[2]}; see the loader in datasets/{name}.py"
            ) from error
        raise


def _loader(name: str) -> Loader:
    if name not in _loaders:
        if name in built_in():
            importlib.import_module(f".{name}", __package__)
        for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
            if point.name == name:
                _loaders[name] = point.load()
    if name not in _loaders:
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise DataError(
            f"unknown data set {name!r}; {hint}known: {', '.join(names())}, or a path such as ./my_features"
        )
    return _loaders[name]


def describe(name: str, data_root: Path | None = None) -> tuple[bool, str]:
    """Whether the data set can be loaded here, and its remark or the reason why not."""
    try:
        dataset = load(name, data_root)
    except DataError as error:
        return False, str(error)
    sizes = ", ".join(f"{split} {part.n_images:,} x {part.n_captions:,}" for split, part in dataset.splits.items())
    return True, f"{dataset.remark} ({sizes})"
