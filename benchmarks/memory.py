"""Peak memory of a step: what torch's allocator reports on a GPU, and the storages alive between operations on a CPU."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["peak"]


class Ledger(TorchDispatchMode):
    """Counts the bytes of all storages that operations of eager torch make, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and enter what it made."""
        before = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            storage = x.untyped_storage() if isinstance(x, torch.Tensor) else None
            if storage is None or storage._cdata in before | self.known:
                continue
            self.known.add(storage._cdata)
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self.leave, storage._cdata, storage.nbytes())
        return out

    def leave(self, key: int, size: int) -> None:
        """A storage is gone."""
        self.known.discard(key)
        self.now -= size


def peak(step: Callable[[], Any], device: str) -> int:
    """Bytes that a step needs beyond what is there before it; compiled code on a CPU cannot be counted so."""
    step()  # optimizers make their moments
    if device == "cpu":
        with Ledger() as ledger:
            step()
        return ledger.most
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
