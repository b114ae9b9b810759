"""PyTorch: `nfn_torch` modules trained with `torch.optim`."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import nfn_torch
import numpy as np
import torch
import torch.distributed
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map

from nfn_core import Layer
from reference_experiments.engines.base import GPU_BLOCK, Inputs, Recipe, State, check_state, rows
from reference_experiments.files import ExperimentError

__all__ = ["ENGINE"]


LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "binary": lambda scores, y: binary_cross_entropy_with_logits(scores[:, 0], y),
    "classes": cross_entropy,
    "custom": lambda losses, _: losses.mean(),
}


THREADS = torch.get_num_threads()
"""CPU threads that torch has when this module is imported."""


class TorchLearner:
    """See `Learner`."""

    def __init__(self, layer: Layer, recipe: Recipe, seed: int) -> None:
        self.recipe, self.seed = recipe, seed
        self.network = nfn_torch.NFModule(layer, seed)
        together = torch.distributed.is_initialized()
        self.module = DistributedDataParallel(self.network) if together else self.network
        self.mine = (
            slice(torch.distributed.get_rank(), None, torch.distributed.get_world_size()) if together else slice(None)
        )
        decay = recipe.weight_decay
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=recipe.learning_rate, weight_decay=decay)

    def step(self, inputs: Inputs, targets: np.ndarray, number: int) -> torch.Tensor:
        """Take one step, together with other processes if there are some, each on its part of the batch."""
        torch.manual_seed(self.seed * 1_000_003 + number + 500_009 * (self.mine.start or 0))  # dropout
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(number)
        self.network.train()
        device, narrow = torch.get_default_device().type, self.recipe.dtype == "bfloat16"
        with torch.autocast(device, torch.bfloat16, enabled=narrow):
            scores = self.module(_tensors(rows(inputs, self.mine))).to(torch.float32)
        loss = LOSSES[self.recipe.loss](scores, _tensor(targets[self.mine]))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    def apply(self, inputs: Inputs) -> Any:
        """Apply the network to inputs of the host, in float32 always."""
        self.network.eval()
        with torch.no_grad():
            return tree_map(partial(torch.Tensor.numpy, force=True), self.network(_tensors(inputs)))

    def state(self) -> State:
        """Parameters by name, and for each parameter AdamW's state."""
        found = {f"parameter {name}": x for name, x in self.network.named_arrays().items()}
        known = self.optimizer.state_dict()["state"]
        for index, parameter in enumerate(self.optimizer.param_groups[0]["params"] if known else ()):
            zero = torch.zeros_like(parameter)  # of parameters that had no gradient yet
            moments = known.get(index, {"step": torch.tensor(0.0), "exp_avg": zero, "exp_avg_sq": zero})
            found |= {f"moment {index} {name}": x for name, x in moments.items()}
        return {name: x.numpy(force=True).copy() for name, x in found.items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over parameters and AdamW's state."""
        shapes = {f"parameter {name}": tuple(x.shape) for name, x in self.network.named_arrays().items()}
        if any(key.startswith("moment ") for key in state):  # they are there from the first step on
            for index, parameter in enumerate(self.optimizer.param_groups[0]["params"]):
                shape = tuple(parameter.shape)
                shapes |= {f"moment {index} step": (), f"moment {index} exp_avg": shape}
                shapes[f"moment {index} exp_avg_sq"] = shape
        check_state(state, shapes)
        parameters: dict[str, torch.Tensor] = {}
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, x in state.items():
            kind, name, *rest = key.split(" ")
            if kind == "parameter":
                parameters[name] = torch.tensor(x)
            else:
                moments.setdefault(int(name), {})[rest[0]] = torch.tensor(x)
        self.network.load_state_dict(parameters)
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})

    def save(self, path: Path) -> None:
        """Write the parameters."""
        nfn_torch.save(path, self.network)


class TorchEngine:
    """See `Engine`."""

    name = "torch"
    block = 20
    convolutional_block = 1
    learner = TorchLearner
    sin = staticmethod(torch.sin)

    def use(self, gpu: bool, devices: int = 1) -> None:
        """Make the GPU torch's default device; of several devices each belongs to a process that torchrun has started.

        Raises
        ------
        ExperimentError
            If torchrun has started another number of processes, on all machines together.
        """
        started = int(os.environ.get("WORLD_SIZE", "1"))
        if devices != started:
            raise ExperimentError(
                f"{devices} devices were asked for, but there are {started} processes: start one for each device with "
                f"torchrun, on all machines together, or ask for {started}."
            )
        if devices > 1:
            torch.distributed.init_process_group("nccl" if gpu else "gloo")
        if gpu:
            torch.set_default_device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")
            self.block = self.convolutional_block = GPU_BLOCK

    def device(self) -> str:
        """Name of torch's default device."""
        return torch.cuda.get_device_name() if torch.get_default_device().type == "cuda" else "CPU"

    def threads(self) -> int:
        """Torch's number of threads."""
        return torch.get_num_threads()

    def thread_counts(self) -> tuple[int, ...]:
        """One, and as many as torch began with, which the environment variable OMP_NUM_THREADS limits."""
        return (1, THREADS) if THREADS > 1 and torch.get_default_device().type == "cpu" else (THREADS,)

    def use_threads(self, count: int) -> None:
        """Set torch's number of threads."""
        torch.set_num_threads(count)

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
    """Inputs as tensors."""
    if isinstance(inputs, dict):
        return nfn_torch.WeightSpaceFeatures({name: _tensor(x) for name, x in inputs.items()})
    return _tensor(inputs)


def _tensor(x: np.ndarray) -> torch.Tensor:
    """Tensor on torch's default device, where that is the host in the array's own memory."""
    return torch.from_numpy(x).to(torch.get_default_device())


ENGINE = TorchEngine()
