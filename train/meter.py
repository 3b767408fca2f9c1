"""How much memory a computation needs, found by carrying it out on tensors without contents.

A model is built with the shapes of its configuration and no weights; PyTorch's fake tensors then
go through the very code that trains it. What is alive at any moment is counted storage by storage,
so that no formula of ours has to know an architecture, a method or what a block saves for its
backward pass.
"""

import contextlib
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Meter(TorchDispatchMode):
    """Bytes of all storages that are alive: now, and at most so far.

    ``small`` sums those, freed or not, that are smaller than ``block`` and were made by what the
    backward pass will go through.
    """

    def __init__(self, held: Sequence[torch.Tensor] = (), block: int = 0) -> None:
        """``held``: tensors that are there already."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = self.small = 0
        self._block = block
        self._alive: dict[int, Any] = {}
        for tensor in held:
            self._note(tensor, False)

    def _note(self, tensor: torch.Tensor, recorded: bool) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return
        self.now += size
        self.peak = max(self.peak, self.now)
        self.small += size if recorded and size < self._block else 0

        def gone(_: Any) -> None:
            self.now -= size
            del self._alive[key]

        self._alive[key] = weakref.ref(storage, gone)

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), more: Any = None
    ) -> Any:
        if function is torch.ops.prim.device.default:  # two thirds of all that is asked
            return arguments[0].fake_device
        recorded = torch.is_grad_enabled() and any(
            isinstance(leaf, torch.Tensor) and leaf.requires_grad
            for leaf in tree_leaves((arguments, more))
        )
        result = function(*arguments, **(more or {}))
        for leaf in tree_leaves(result):
            # The parts of a sparse tensor have been counted as tensors of their own.
            if isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided:
                self._note(leaf, recorded)
        return result


@contextlib.contextmanager
def without_contents(*modules: nn.Module | None) -> Iterator[None]:
    """Fake tensors for parameters and buffers of modules on the meta device, and for all new ones.

    What shares a parameter goes on sharing it.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        made: dict[int, torch.Tensor] = {}
        for module in (m for top in modules if top is not None for m in top.modules()):
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None:
                        made.setdefault(id(tensor), _alike(tensor))
                        tensors[name] = made[id(tensor)]  # type: ignore[assignment]
        yield


def _alike(tensor: torch.Tensor) -> torch.Tensor:
    empty = torch.empty(tensor.shape, dtype=tensor.dtype)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(empty, requires_grad=tensor.requires_grad)
    return empty
