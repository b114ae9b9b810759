"""PyTorch: `nfn_torch` modules trained with `torch.optim`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nfn_torch
import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from nfn_core import Layer
from reference_experiments.engines import Inputs, State, chunks

__all__ = ["ENGINE"]


class TorchLearner:
    """See `Learner`."""

    def __init__(self, layer: Layer, seed: int, learning_rate: float, weight_decay: float) -> None:
        torch.manual_seed(seed)  # dropout
        self.network = nfn_torch.NFModule(layer, seed)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=learning_rate, weight_decay=weight_decay)

    def step(self, inputs: Inputs, targets: np.ndarray) -> float:
        """Take one step."""
        self.network.train()
        loss = binary_cross_entropy_with_logits(self.network(_tensors(inputs))[:, 0], torch.tensor(targets))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.item()

    def predict(self, inputs: Inputs) -> np.ndarray:
        """Predict in chunks."""
        self.network.eval()
        with torch.no_grad():
            logits = [self.network(_tensors(part))[:, 0] for part in chunks(inputs, 64)]
        return np.asarray(torch.sigmoid(torch.cat(logits)).numpy())

    def save(self, path: Path) -> None:
        """Write the parameters."""
        nfn_torch.save(path, self.network)

    def load(self, path: Path) -> None:
        """Read the parameters."""
        nfn_torch.load(path, self.network)


class TorchEngine:
    """See `Engine`."""

    name = "torch"
    block = 20
    learner = TorchLearner
    sin = staticmethod(torch.sin)

    def use_gpu(self) -> None:
        """Make it torch's default device."""
        torch.set_default_device("cuda")

    def array(self, x: np.ndarray) -> torch.Tensor:
        """Copy to torch."""
        return torch.tensor(x)

    def numpy(self, x: torch.Tensor) -> np.ndarray:
        """Copy to NumPy."""
        return np.asarray(x.numpy(force=True))

    def grad(self, function: Callable[..., torch.Tensor]) -> Callable[..., State]:
        """Gradient by the first argument."""
        gradient: Callable[..., State] = torch.func.grad(function)
        return gradient

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Leave it as it is."""
        return function

    def loop(self, step: Callable[[State, Any], State]) -> Callable[[State, Any], State]:
        """Loop in Python."""

        def run(state: State, inputs: Any) -> State:
            if isinstance(inputs, dict):
                inputs = [dict(zip(inputs, row, strict=True)) for row in zip(*inputs.values(), strict=True)]
            for row in inputs:
                state = step(state, row)
            return state

        return run


def _tensors(inputs: Inputs) -> Any:
    """Tensors that share the host's memory."""
    if isinstance(inputs, dict):
        return nfn_torch.WeightSpaceFeatures({name: torch.from_numpy(x) for name, x in inputs.items()})
    return torch.from_numpy(inputs)


ENGINE = TorchEngine()
