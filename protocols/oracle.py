"""``oracle_clean``: plain training on what is truly clean, in each task; the methods behind the firewall, hence not in ``methods/``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..methods.ce import CrossEntropy
from ..methods.clip import Clip
from ..methods.contract import Batch, Networks, Pass, Reinit, State, StepOutput, Update
from ..methods.registry import register


@register(name="oracle_clean")
class OracleClean(Clip):
    """InfoNCE on the clean subset, which the engine alone knows: the upper bound that shares of the gap are measured against.

    It makes as many passes over its smaller subset as the others over all pairs (controls.md; hana.md section 6, row "oracle").
    """

    label = "InfoNCE on the clean pairs (oracle)"
    spec_page = "controls.md"
    flags = frozenset({"control", "oracle"})
    variants = {"paper": Clip.Params()}
    differences = ()
    counterparts = {"label-hashing": "oracle_clean_labels"}

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        return [Pass({"oracle-clean": self.spec.batch_size}, (Update("train"),), last_batch="keep")]

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        out = super().loss(nets, {"all": batch["oracle-clean"]}, state, update)
        return replace(out, loss=out.loss)


@register(name="oracle_clean_labels")
class OracleCleanLabels(CrossEntropy):
    """Cross-entropy on the items whose labels are right, which the engine alone knows: the upper bound of ``ce``.

    It makes one pass over its smaller subset per epoch. ``--methods oracle_clean`` means this one in label-based retrieval.
    """

    label = "CE on the clean items (oracle)"
    spec_page = "controls.md"
    flags = frozenset({"control", "oracle"})
    variants = {"paper": CrossEntropy.Params()}
    counterparts = {"pair-retrieval": "oracle_clean"}

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        return [Pass({"oracle-clean": self.spec.batch_size}, (Update("train"),), last_batch="keep")]

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        return super().loss(nets, {"all": batch["oracle-clean"]}, state, update)
