"""Protocol files: every shipped one is valid, every mistake is one sentence with the nearest key or value."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from nocobench.protocols.protocol import (
    DEFAULT,
    SPECS,
    ProtocolError,
    load_protocol,
    protocol_names,
    with_overrides,
)

SHIPPED = {
    "digits-pairs", "emoji-pairs", "multi30k-mini-pairs", "multi30k-pairs", "synthetic-pairs", "synthetic-30k-pairs",
    "flickr30k-clip-pairs", "coco-clip-pairs", "cc120k-clip-pairs", "cc-web-pairs",
    "wikipedia-labels", "uci-labels", "cub10-labels", "digits-labels", "multi30k-concepts", "xmedia-labels", "inria-labels",
    "xmedianet-labels", "mirflickr-labels", "nuswide-labels", "coco-labels",
}  # fmt: skip


def mistake(tmp_path: Path, old: str, new: str) -> str:
    """The message for the default protocol with ``old`` replaced."""
    text = (SPECS / f"{DEFAULT}.yaml").read_text()
    assert text.count(old) >= 1
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ProtocolError) as caught:
        load_protocol(path)
    message = str(caught.value)
    assert "mine.yaml" in message
    assert "\n" not in message
    return message


def test_the_shipped_protocols_are_there() -> None:
    assert set(protocol_names()) >= SHIPPED
    assert DEFAULT in SHIPPED


@pytest.mark.parametrize("name", protocol_names())
def test_shipped_protocol_is_valid_and_complete(name: str) -> None:
    protocol = load_protocol(name)
    assert protocol.name == name
    assert len(protocol.description) > 40
    written = yaml.safe_load((SPECS / f"{name}.yaml").read_text())
    # Every section stands in the file, so that nobody has to know the defaults.
    absent = {"bits"} if protocol.task == "pair-retrieval" else set()
    assert set(written) == set(type(protocol).model_fields) - absent
    assert set(written["budget"]["optimizer"]) >= {"rule", "learning_rate", "betas", "eps", "decay", "schedule"}


def test_real_noise_has_no_rates() -> None:
    protocol = load_protocol("cc120k-clip-pairs")
    assert protocol.noise.model == "none"
    assert protocol.noise.rates is None
    assert protocol.grants.names == frozenset()


def test_real_noise_can_be_chosen_for_any_protocol() -> None:
    protocol, marked = with_overrides(load_protocol(DEFAULT), noise_model="none")
    assert protocol.noise.rates is None
    assert marked == {}  # the noise model has a place of its own in the key


@pytest.mark.parametrize(("model", "refused"), [("nested-mismatch", True), ("none", False)])
def test_noise_is_not_added_to_pairs_that_are_noisy_by_nature(
    monkeypatch: pytest.MonkeyPatch, model: str, refused: bool
) -> None:
    """Against which truth would the realised rate and the separation of clean and noisy pairs be measured?"""
    from nocobench.protocols import commands

    web = replace(commands.registry.load("digits"), name="web", has_real_noise=True)
    monkeypatch.setattr(commands.registry, "load", lambda *_, **__: web)
    protocol, _ = with_overrides(load_protocol(DEFAULT), noise_model=model)
    with pytest.raises(ProtocolError, match="noisy by nature") if refused else nullcontext():
        commands.check_data(protocol, None)


def test_coco_reports_folds_and_whole() -> None:
    evaluation = load_protocol("coco-clip-pairs").evaluation
    assert (evaluation.folds, evaluation.headline) == (5, "folds")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("batch_size: 128", "batchsize: 128", ["unknown key 'budget.batchsize'", "did you mean 'budget.batch_size'?"]),
        ("version: 1\n", "version: 1\nepochs: 3\n", ["unknown key 'epochs'", "did you mean 'budget.epochs'?"]),
        ("epochs: 20", "epochs: twenty", ["'budget.epochs'", "'twenty'", "integer"]),
        ("epochs: 20", "epochs: -1", ["'budget.epochs'", "-1", "greater than or equal to 0"]),
        ("epochs: 20", 'epochs: "20"', ["'budget.epochs'", "'20'", "integer"]),
        ("kind: mlp", "kind: mpl", ["'backbone.kind'", "did you mean 'mlp'?"]),
        ("tf32: false", "tf32: 0", ["'numerics.tf32'", "boolean"]),
        ("rates: [0.0,", "rates: [1.5,", ["rate 1.5 lies outside 0..1"]),
        ("rates: [0.0,", "rates: [0.2,", ["rates holds 0.2 twice"]),
        ("seeds: [0, 1", "seeds: [0, 0", ["seeds holds 0 twice"]),
        ("seeds: [0,", "seeds: [-1,", ["seed -1 is negative"]),
        ("hidden: 256", "hidden: null", ["'mlp' needs 'hidden'"]),
        ("3, 4]", "3, 4", ["not valid YAML"]),
        ("headline: full", "headline: folds", ["headline 'folds' needs 'folds' of at least 2"]),
        ("model: nested-mismatch", "model: none", ["'rates: null'"]),
        ("name: digits-pairs\n", "", ["key 'name' is missing"]),
        ("name: digits-pairs", "name: ../elsewhere", ["'name'", "../elsewhere"]),
        ("version: 1\n", "version: 1\nversion: 2\n", ["key 'version' occurs twice", "line 2"]),
        ("seeds: [0,", "seeds: 0,", ["'seeds'", "array"]),
        ("learning_rate: 0.001", "learning_rate: .nan", ["'budget.optimizer.learning_rate'", "finite"]),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    message = mistake(tmp_path, old, new)
    for part in expected:
        assert part in message


def test_exponents_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = (SPECS / f"{DEFAULT}.yaml").read_text()
    path.write_text(text.replace("learning_rate: 0.001", "learning_rate: 1e-3"))
    assert load_protocol(path).budget.optimizer.learning_rate == 1e-3


def test_unknown_name_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match=r"unknown protocol 'digit-pairs'; did you mean 'digits-pairs'\?"):
        load_protocol("digit-pairs")
    with pytest.raises(ProtocolError, match="does not exist"):
        load_protocol(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ProtocolError, match="holds no keys"):
        load_protocol(tmp_path / "empty.yaml")


def test_overrides_mark_what_the_key_does_not_hold() -> None:
    base = load_protocol(DEFAULT)
    changed, overrides = with_overrides(base, epochs=3, seeds=(7,), rates=(0.4,), selection="last", batch_size=None)
    assert overrides == {"epochs": 3, "selection": "last"}
    assert (changed.budget.epochs, changed.seeds, changed.noise.rates) == (3, (7,), (0.4,))
    assert changed.budget.batch_size == base.budget.batch_size
    assert base.budget.epochs == 20


def test_an_override_equal_to_the_protocol_is_none() -> None:
    base = load_protocol(DEFAULT)
    assert with_overrides(base, epochs=base.budget.epochs, track="fixed-budget") == (base, {})


def test_another_data_set_drops_the_options_of_the_old_one() -> None:
    base = load_protocol("synthetic-pairs")
    assert base.dataset.options
    changed, overrides = with_overrides(base, dataset="digits")
    assert (changed.dataset.name, changed.dataset.options, overrides) == ("digits", {}, {})


def test_wrong_overrides_are_errors() -> None:
    base = load_protocol(DEFAULT)
    with pytest.raises(ProtocolError, match=r"did you mean 'epochs'\?"):
        with_overrides(base, epoch=3)
    with pytest.raises(ProtocolError, match=r"rate 4 lies outside 0\.\.1"):
        with_overrides(base, rates=[4.0])
    with pytest.raises(ProtocolError, match=r"did you mean 'last'\?"):
        with_overrides(base, selection="lst")
