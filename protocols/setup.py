"""What is settled once before a shard is trained: numerics of the process, and what the method may know."""

from __future__ import annotations

import torch

from ..methods.contract import Backbone, Budget, GradientMethod, Method, Spec
from ..methods.optim import Optimizer, Schedule
from ..methods.registry import MethodError
from ..results.record import CellKey
from .protocol import Numerics, Protocol
from .tasks import ShardData


def set_numerics(numerics: Numerics) -> None:
    """Threads, deterministic kernels, no TF32: the settings that change bits (design: they belong to the protocol)."""
    torch.set_num_threads(numerics.threads)
    torch.use_deterministic_algorithms(True)
    torch.backends.cuda.matmul.allow_tf32 = numerics.tf32
    torch.backends.cudnn.allow_tf32 = numerics.tf32
    torch.backends.cudnn.benchmark = False


def budget_of(protocol: Protocol, method: type[Method]) -> Budget:
    """The protocol's budget, or the method's own in the track ``author-recipe``.

    Raises:
        MethodError: the track asks for a recipe that the method does not have.
    """
    if protocol.track == "author-recipe" and issubclass(method, GradientMethod):
        if method.recipe is None:
            raise MethodError(f"{method.__name__} has no author recipe; run it in the track fixed-budget")
        return method.recipe
    choice = protocol.budget.optimizer.model_dump()
    optimizer = Optimizer(**(choice | {"schedule": Schedule(**choice["schedule"])}))
    return Budget(protocol.budget.epochs, protocol.budget.batch_size, optimizer)


def spec_for(protocol: Protocol, method: type[Method], data: ShardData, cell: CellKey) -> Spec:
    """Sizes, dimensions, classes, bits, backbone, budget and grants."""
    return Spec(
        n_pairs=data.tables.n_pairs,
        n_images=len(data.tables.images),
        image_dim=data.tables.images.shape[-1],
        text_dim=data.tables.captions.shape[-1],
        shared_space=data.dataset.shared_space,
        backbone=Backbone(**protocol.backbone.model_dump()),
        budget=budget_of(protocol, method),
        n_meta_images=data.n_meta_images,
        grants=protocol.grants.names,
        n_classes=data.n_classes,
        multi_label=data.multi_label,
        bits=cell.bits or 0,
        dataset=data.dataset.name,
    )
