"""`--shard`: a base that no device holds whole, its frozen weights split among the processes.

PyTorch's FSDP (`fully_shard`; Zhao et al. 2023, "PyTorch FSDP") gathers a block's weights before it
computes and drops them afterwards; DeepSpeed calls it ZeRO stage 3 (Rajbhandari et al. 2020). What
is trained is small and stays whole with everybody, so that losses, gradients, checkpoints and the
run's folder are those of `train.parallel`. Each process reads the base into its own RAM first.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from abstain.blocks import decoder
from abstain.model import device
from train import parallel
from train.collate import Example
from train.steps import Batch


def shard(model: Any) -> None:
    """Split the frozen matrices of every block among all processes; the rest goes to the device."""
    if parallel.processes() > 1:
        mesh = init_device_mesh(device().type, (parallel.processes(),))
        # Gains and biases are small, and in another precision than matrices.
        whole = {p for p in model.parameters() if p.requires_grad or p.dim() < 2}
        for block in decoder(model).layers:
            # Said aloud: a block that nothing else wraps would stay gathered after a forward pass.
            fully_shard(block, mesh=mesh, ignored_params=whole, reshard_after_forward=True)
    for tensor in (*model.parameters(), *model.buffers()):
        if not isinstance(tensor, DTensor):
            tensor.data = tensor.data.to(device())


def even(batch: Sequence[list[Example]], number: int, count: int) -> Batch:
    """The packs of process ``number``, filled up so that all have as many.

    Everybody takes part in gathering weights, whether there is a pack for him or not: then he reads
    one row that counts for nothing.
    """
    shares = [parallel.share(batch, other, count) for other in range(count)]
    smallest = min((example for pack in batch for example in pack), key=len)
    missing = max(map(len, shares)) - len(shares[number])
    return [*shares[number], *[[_idle(smallest)]] * missing]


def _idle(example: Example) -> Example:
    return replace(example, weight=0.0, decline=(), reward=0.0)
