"""The page of methods, ``docs/methods.md``, written from the registered classes: variants, and where code and paper differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from ..methods import registry
from ..methods.contract import DirectMethod, Method
from . import oracle as _oracle  # noqa: F401  (registers the one method behind the firewall)

COMMAND = "python run_benchmark.py list methods --markdown"
STATUS_OF_FLAG = {
    "reconstruction": "reconstruction: written from a description, there is no official code",
    "own-generalisation": "generalisation by this suite, no published method",
    "oracle": "oracle: told what is clean, an upper bound",
    "control": "control",
    "clean-meta-set": "needs verified pairs",
}
FAITHFUL = "reproduces the official code"


def overview(names: Sequence[str] | None = None) -> str:
    """One Markdown table, a row per method: name, how it is printed, reference, variants, status."""
    rows = [
        (f"`{name}`", cls.label, cls.reference, " ".join(f"`{variant}`" for variant in cls.variants), status(cls))
        for name, cls in _classes(names)
    ]
    return _table(("method", "printed as", "paper", "variants", "status"), rows)


def page(names: Sequence[str] | None = None) -> str:
    """The whole page: the overview, then each method's variants and its table of differences."""
    parts = ["# Methods", f"Written by `{COMMAND}` from the classes in `methods/`; the tests compare.", overview(names)]
    for name, cls in _classes(names):
        parts += [f"## {name}", f"{cls.label}. {_first_paragraph(cls)}"]
        parts.append(_table(("variant", "what it changes"), _variants(cls)))
        if cls.differences:
            rows = [(one.what, one.paper, one.released, one.spec) for one in cls.differences]
            parts.append("Where the released code differs from the paper:")
            parts.append(_table(("what", "paper", "released code", "specification"), rows))
    return "\n\n".join(parts) + "\n"


def status(cls: type[Method]) -> str:
    """What a reader must know before trusting the method's numbers."""
    words = ["label noise"] if cls.task == "label-hashing" else []
    words += [text for flag, text in STATUS_OF_FLAG.items() if flag in cls.flags]
    if "released" in cls.variants and "reconstruction" not in cls.flags:
        words.append(FAITHFUL)
    return "; ".join(words)


def _classes(names: Sequence[str] | None) -> Iterator[tuple[str, type[Method]]]:
    """The methods that ship with the suite, or those named."""
    for name in names if names is not None else _shipped():
        yield name, registry.get(name).cls


def _shipped() -> list[str]:
    """Methods for mismatched pairs first, then those for wrong labels."""
    names = {*registry.built_in(), "oracle_clean", "oracle_clean_labels"}
    return sorted(names, key=lambda name: (registry.get(name).cls.task != "pair-retrieval", name))


def _variants(cls: type[Method]) -> Iterator[tuple[str, str]]:
    """Every variant with the constants that differ from the default one; the default with all constants."""
    default_name, default = next(iter(cls.variants.items()))
    fields = [field.name for field in dataclasses.fields(cls.Params)]
    all_constants = ", ".join(f"{name} = {getattr(default, name)}" for name in fields)
    yield f"`{default_name}` (default)", all_constants or "no constants"
    for name, params in list(cls.variants.items())[1:]:
        changed = [f for f in fields if getattr(params, f) != getattr(default, f)]
        yield f"`{name}`", ", ".join(f"{f} = {getattr(params, f)}" for f in changed) or "nothing"


def _first_paragraph(cls: type[Method]) -> str:
    text = " ".join((cls.__doc__ or "").split("\n\n")[0].split())
    kind = "Closed form, no training loop." if issubclass(cls, DirectMethod) else ""
    return f"{text} {kind}".strip()


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; not tabulate's, which pads every cell to the widest one and makes lines of 500 characters."""
    cells = [[text.replace("|", "\\|") for text in row] for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
