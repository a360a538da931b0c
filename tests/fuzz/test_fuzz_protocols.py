"""Protocol files: whatever stands in them, they are read as written or refused in one sentence, in bounded time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fuzz.asking import check_sentence, checked, refused
from fuzz.counting import attempt, fuzzing
from fuzz.damage import TEXTS, changed, damaged, values
from fuzz.test_fuzz_arrays import npy, npz
from hypothesis import given
from hypothesis import strategies as st
from nocobench.datasets import noise
from nocobench.datasets.types import DataError
from nocobench.protocols.protocol import SPECS, Protocol, ProtocolError, load_protocol

GOOD = {name: (SPECS / f"{name}.yaml").read_bytes() for name in ("digits-pairs", "wikipedia-labels")}
CONTENT = {name: yaml.safe_load(text) for name, text in GOOD.items()}
names = st.sampled_from(sorted(GOOD))


def load(text: bytes) -> Protocol | None:
    """The protocol in a file of these bytes; None where it is refused."""
    path = Path("protocol.yaml")
    path.write_bytes(text)
    started = time.process_time()
    try:
        return load_protocol("./protocol.yaml")
    except ProtocolError as error:
        check_sentence(error)
        return None
    finally:
        assert time.process_time() - started < 10


@given(st.data())
@fuzzing(80)
def test_damaged_files(data: st.DataObject) -> None:
    text = data.draw(damaged(GOOD[data.draw(names)]))
    with attempt("protocol YAML", text):
        load(text)


@given(st.data())
@fuzzing(80)
def test_other_values(data: st.DataObject) -> None:
    content = data.draw(changed(CONTENT[data.draw(names)]))
    text = yaml.safe_dump(content, allow_unicode=False).encode("utf-8", "surrogatepass")
    with attempt("protocol YAML", text):
        load(text)


PIECES = (
    "a: ", "- ", "? ", "[", "]", "{", "}", ",", ": ", "\n", "  ", "&a ", "*a", "<<: ", "!!int ", "!!float ", "!!bool ", "!!timestamp ",
    "!!binary ",
    "!!set ", "!!omap ", "!!pairs ", "!!map ", "!!seq ", "!!str ", "!!null ", "!!python/name:os.system ",
    "!!python/object/apply:os.mkdir [x]",
    "!<tag:yaml.org,2002:merge> ", "'",
    '"', '"\\ud800"', '"\\x00"', "|\n", ">-\n", "---\n", "...\n", "%YAML 1.1\n", "%TAG ! x\n", "# c\n", "\t", "\r",
    "2020-13-45", "2020-01-01", "0x", "0b", "1:2:3", ".inf", ".nan", "1e5", "~", "name", "=", "<<", "\ufeff", "\x85", "\u2028",
)  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=25))
@fuzzing(150)
def test_any_yaml(pieces: list[str]) -> None:
    text = "".join(pieces).encode()
    with attempt("protocol YAML", text):
        load(text)


def bombs() -> Iterator[tuple[str, str]]:
    """Small files that stand for much."""
    levels = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'x'}]\n" for i in range(12))
    yield "aliases", levels
    yield (
        "merges",
        "".join(
            f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}], b{i}: 1}}\n" if i else "a0: &a0 {x: 1}\n"
            for i in range(12)
        ),
    )
    yield "itself", "a: &a [*a]\n"
    yield "itself as a key", "a: &a {? *a : 1}\n"
    for opening in ("[", "{a: ", "- ", "? ", "!!seq [", "&x ["):
        yield f"deep {opening}", opening * 20_000
    yield "deep indentation", "".join(f"{' ' * i}a:\n" for i in range(400))
    yield "keys", "".join(f"k{i}: 1\n" for i in range(9_000))
    yield "large", "a: 1\n" * 1_000_000
    yield "digits", f"version: {'9' * 90_000}\n"
    yield "hexadecimal", f"version: 0x{'f' * 90_000}\n"
    yield "sexagesimal", f"version: {':'.join(['1'] * 40_000)}\n"
    yield "sexagesimal float", f"version: 1{':1' * 400}.5\n"
    yield "long key", f"{'k' * 90_000}: 1\n"
    yield "long value", f"name: {'v' * 90_000}\n"


@pytest.mark.parametrize(("name", "text"), list(bombs()), ids=[name for name, _ in bombs()])
def test_bombs(name: str, text: str) -> None:
    with attempt("protocol YAML", name):
        started = time.process_time()
        Path("bomb.yaml").write_text(text)
        refused("--methods", "clip", "--protocol", "./bomb.yaml", "--dry-run")
        assert time.process_time() - started < 15


def test_a_grid_that_would_fill_the_memory() -> None:
    content = CONTENT["digits-pairs"] | {"seeds": list(range(600))}
    content["noise"] = content["noise"] | {"rates": [i / 600 for i in range(600)]}
    with attempt("protocol YAML"):
        Path("grid.yaml").write_text(yaml.safe_dump(content))
        assert "360,000 cells" in refused("--methods", "clip", "--protocol", "./grid.yaml", "--dry-run")


DRY = ("--methods", "clip", "--dry-run", "--device", "cpu", "--workers", "1")


@given(st.sampled_from(("dataset", "noise", "evaluation", "budget", "backbone")), st.data())
@fuzzing(15)
def test_what_passes_is_planned_or_refused(part: str, data: st.DataObject) -> None:
    """Whole dry runs: data sets and options named in a file are looked for as well."""
    content: dict[str, Any] = CONTENT["digits-pairs"] | {part: data.draw(changed(CONTENT["digits-pairs"][part]))}
    text = yaml.safe_dump(content).encode("utf-8", "surrogatepass")
    with attempt("protocol YAML", text):
        Path("protocol.yaml").write_bytes(text)
        checked(*DRY, "--protocol", "./protocol.yaml", "--results", "results")


@given(st.sampled_from(("digits", "synthetic", "folder", "emoji", "multi30k", "nuswide")), st.dictionaries(st.sampled_from((
    "n_train", "n_val", "image_dim", "latent_dim", "clusters", "hardness", "seed", "n_classes", "captions_per_image", "zero_shot",
    "path", "halves",
    "dim", "first", "texts", "classes", "name", "data_root", "loader",
)), values, max_size=3))  # fmt: skip
@fuzzing(15)
def test_options_of_data_sets(name: str, options: dict[str, Any]) -> None:
    content = CONTENT["digits-pairs"] | {"dataset": {"name": name, "options": options}}
    text = yaml.safe_dump(content).encode("utf-8", "surrogatepass")
    with attempt("protocol YAML", text):
        Path("protocol.yaml").write_bytes(text)
        checked(*DRY, "--protocol", "./protocol.yaml", "--results", "results", "--data-root", "nothing")


@given(
    st.dictionaries(
        st.sampled_from(("file", "key", "sha256", "files", "model", "rate", "x")),
        values | st.sampled_from(TEXTS),
        max_size=3,
    )
)
@fuzzing(15)
def test_options_of_noise_files(options: dict[str, Any]) -> None:
    content = CONTENT["digits-pairs"] | {"noise": {"model": "replay", "rates": [0.2], "options": options}}
    text = yaml.safe_dump(content).encode("utf-8", "surrogatepass")
    with attempt("protocol YAML", text):
        Path("protocol.yaml").write_bytes(text)
        checked(*DRY, "--protocol", "./protocol.yaml", "--results", "results")


INDEX = npy(np.arange(1197)), npz(key=npy(np.arange(1197)))


@given(st.sampled_from(INDEX), st.data())
@fuzzing(15)
def test_damaged_noise_files(good: bytes, data: st.DataObject) -> None:
    """An index file is looked at before anything is trained, and drawing noise from it is refused or gives what it holds."""
    content = data.draw(damaged(good))
    options = {"file": "index", "key": "key"}
    protocol = CONTENT["digits-pairs"] | {"noise": {"model": "replay", "rates": [0.2], "options": options}}
    with attempt("noise index", content):
        Path("index").write_bytes(content)
        Path("protocol.yaml").write_text(yaml.safe_dump(protocol))
        answer = checked(*DRY, "--protocol", "./protocol.yaml", "--results", "results")
        if answer.code == 0:
            with contextlib.suppress(DataError):
                assert len(noise.realise("replay", "set", np.arange(1197), 0.2, 0, **options).target_index) == 1197
