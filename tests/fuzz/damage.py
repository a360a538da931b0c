"""Ways to damage bytes, texts and values, as hypothesis strategies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

# Numbers that headers and lengths are made of, where readers are wrong most often.
NUMBERS = (
    0,
    1,
    2,
    7,
    127,
    128,
    255,
    256,
    2**15,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    10**12,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
TEXTS = (
    "", " ", "..", "../..", "../../etc/passwd", "/etc/passwd", "~nobody-at-all/x", "\x00", "a\x00b", "\ud800", "\u202e", "\x1b[2J",
    "é", "a" * 300,
    "%s%n", "{rate}", "{0.__class__}", "{rate:>99999999}", "NaN", "-0", "1e999", "null", "true", "$(touch x)", "`touch x`",
    "__import__('os')",
    "!!python/object/apply:os.system [touch x]", "clip", "digits", "none", "nested-mismatch", "replay", "folder", "synthetic",
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Some bytes of a good file changed, cut, doubled or set to a number that means something."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        how = draw(st.sampled_from(("bit", "byte", "number", "cut", "drop", "double", "insert", "zero")))
        if how == "bit" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "byte" and content:
            content[at] = draw(st.integers(0, 255))
        elif how == "number":
            width = draw(st.sampled_from((1, 2, 4, 8)))
            number = draw(st.sampled_from(NUMBERS)) % (1 << 8 * width)
            content[at : at + width] = number.to_bytes(width, draw(st.sampled_from(("little", "big"))))
        elif how == "cut":
            del content[at:]
        elif how == "drop":
            del content[at : at + draw(st.integers(1, 64))]
        elif how == "double":
            content[at:at] = content[at : at + draw(st.integers(1, 64))]
        elif how == "zero":
            content[at : at + 16] = bytes(len(content[at : at + 16]))
        else:
            content[at:at] = draw(st.binary(min_size=1, max_size=16))
    return bytes(content)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.integers(),
    st.floats(),
    st.sampled_from(TEXTS),
    st.text(max_size=8),
    st.just(10**400),
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(TEXTS) | st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def changed(draw: st.DrawFn, good: Any) -> Any:
    """Good content (dicts, lists, scalars) in which a few values are others, missing, doubled or new."""
    content = _copy(good)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(content))
        if not places:
            return draw(values)
        holder, key = draw(st.sampled_from(places))
        how = draw(st.sampled_from(("value", "value", "value", "remove", "add", "twice")))
        if how == "remove":
            del holder[key]
        elif how == "value" or (isinstance(holder, dict) and how == "twice"):
            holder[key] = draw(values)
        elif how == "add" and isinstance(holder, dict):
            holder[draw(st.sampled_from(TEXTS) | st.text(max_size=6))] = draw(values)
        else:
            holder.append(_copy(holder[key]))
    return content


def _places(content: Any) -> Sequence[tuple[Any, Any]]:
    """Every (dict or list, key or position) in the content."""
    found: list[tuple[Any, Any]] = []
    keys: Sequence[Any] = (
        list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    )
    for key in keys:
        found += [(content, key), *_places(content[key])]
    return found


def _copy(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _copy(value) for key, value in content.items()}
    return [_copy(value) for value in content] if isinstance(content, list | tuple) else content
