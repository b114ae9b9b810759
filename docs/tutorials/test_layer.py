"""# Put your layer under test

The conformance suite takes any layer, ours or not. A `Subject` says what the layer is and what it claims. Every check
returns a measurement.

You need `pip install "nfn-core[torch,conformance]"`.
"""

import torch
from nfn_conformance import CHECKS, Subject

from nfn_core import WeightSpace

# %%
# ## A layer
#
# A Deep Sets layer: each neuron's features, and the mean over all neurons.


class DeepSets(torch.nn.Module):
    """One weight for the neuron itself, and one for the mean over neurons."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.own, self.mean = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1, bias=False)

    def forward(self, v):
        """Map (batch, neurons, 1) to (batch, neurons, 1)."""
        return self.own(v) + self.mean(v.mean(1, keepdim=True))


# %%
# ## A subject
#
# NumPy arrays go in and out. The layer claims to be linear, and to be *every* equivariant affine map.


def run(module, features):
    """Apply the module to NumPy features."""
    v = torch.tensor(features["v"])
    return {"v": module.to(v.dtype)(v).detach().numpy()}


group = WeightSpace.from_axes({"v": [("h", 5)]}).group("NP")
subject = Subject("DeepSets", group, make=DeepSets, apply=run, linear=True, maximal=True)
for check in CHECKS.values():
    print(check(subject))

# %%
# ## A broken layer
#
# Without the mean the layer is still equivariant, but it is not maximal: rank 1 instead of 2.


class Pointwise(DeepSets):
    """The same without the mean."""

    def forward(self, v):
        """Map every neuron alone."""
        return self.own(v)


broken = Subject("Pointwise", group, make=Pointwise, apply=run, linear=True, maximal=True)
print(CHECKS["maximality"](broken))
