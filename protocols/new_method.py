"""The first file of a new method: complete, commented, and running as it is."""

from __future__ import annotations

import keyword
from pathlib import Path

from .protocol import ProtocolError

TEMPLATE = '''\
"""{title}: one sentence on the idea."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from nocobench.methods.backbones import towers
from nocobench.methods.contract import Batch, GradientMethod, Networks, State, StepOutput
from nocobench.methods.losses import info_nce
from nocobench.methods.registry import register


@register  # the file's name is the method's name: {name}
class {cls}(GradientMethod):
    """Pairs with a small loss count more: ``w_i = exp(-l_i / T)``, ``loss = sum_i w_i l_i / sum_i w_i``."""

    @dataclass(frozen=True)
    class Params:
        temperature: float = 1.0  # T, in units of the loss; your choice or the paper's section

    label = "{title}"
    reference = "authors, title, venue, code"
    variants = {{"paper": Params(), "sharp": Params(temperature=0.5)}}  # the first is the default

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        return {{"net": towers(self.spec)}}  # the protocol's heads

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        # Written for one run; no .item(), no `if` on a tensor, no random call (see nocobench.methods.contract).
        pairs = batch["all"]
        losses = info_nce(nets["net"].logits(pairs.images, pairs.texts), pairs.valid)  # [B]
        weight = torch.exp(-losses.detach() / self.params.temperature)  # [B], in 0..1
        weighted = pairs.sum(weight * losses) / pairs.sum(weight).clamp(min=1e-6)
        return StepOutput({{"weighted": weighted}}, weight=weight, sample_loss=losses)
'''


def write_new_method(name: str, folder: Path) -> Path:
    """Write ``<folder>/<name>.py`` and return its path.

    Raises:
        ProtocolError: not a usable name, no such folder, or the file exists.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise ProtocolError(
            f"{name!r} cannot be a method's name; use lower-case letters, digits and _, as in 'my_method'"
        )
    if not folder.is_dir():
        raise ProtocolError(f"folder {folder} does not exist; make it first or choose another with --to")
    path = folder / f"{name}.py"
    title = name.replace("_", " ").strip().capitalize() or name
    cls = "".join(part.capitalize() for part in name.split("_")) or "Method"
    text = TEMPLATE.format(name=name, title=title, cls=cls if cls.isidentifier() else f"Method{cls}")
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ProtocolError(
            f"{path} exists and is not overwritten; choose another name or --to another folder"
        ) from error
    return path
