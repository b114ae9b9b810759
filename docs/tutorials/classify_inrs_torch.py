"""# Classify INRs in PyTorch

An implicit neural representation (INR) is a small network that maps the coordinates of a pixel to its brightness.
Its weights *are* the image. This tutorial fits one SIREN to each of 720 handwritten digits, and then trains a neural
functional that reads the digit from the weights alone.

You need `pip install "nfn-core[torch]" matplotlib scikit-learn`.
"""

import matplotlib.pyplot as plt
import nfn_torch
import numpy as np
import torch
from sklearn.datasets import load_digits

import nfn_core

torch.manual_seed(0)

# %%
# ## A dataset of networks
#
# The images have 8 x 8 pixels and come with scikit-learn. We take the digits 0, 1, 2 and 3.
# A weight space says which tensors a network has, and which axes of them share neurons.

digits = load_digits(n_class=4)
pixels = torch.tensor(digits.images / 8 - 1, dtype=torch.float32).reshape(-1, 1, 64)  # brightness in [-1, 1]
labels = torch.tensor(digits.target)
space = nfn_core.WeightSpace.mlp([2, 16, 16, 1])
print(space)

# %%
# All networks are fitted at once: every tensor has the network as its first axis. SIRENs need small initial weights
# (Sitzmann et al. 2020). Each network draws its own, so no two networks have the same order of neurons.

OMEGA = 10.0
axis = torch.linspace(-1, 1, 8)
points = torch.stack(torch.meshgrid(axis, axis, indexing="ij")).reshape(2, 64)


def render(weights):
    """Brightness of every pixel, (networks, 1, 64), from weights of shape (networks, *axes)."""
    x = points
    for i in (1, 2, 3):
        x = weights[f"W{i}"] @ x + weights[f"v{i}"][..., None]
        x = torch.sin(OMEGA * x) if i < 3 else x
    return x


def initial(tensor):
    """SIREN initialization of one tensor of all networks."""
    bound = 0.5 if tensor.name == "W1" else (6 / 16) ** 0.5 / OMEGA if tensor.name[0] == "W" else 0.25
    return torch.empty(len(pixels), *tensor.shape).uniform_(-bound, bound).requires_grad_()


weights = {t.name: initial(t) for t in space.tensors}
adam = torch.optim.Adam(weights.values(), lr=5e-3)
for _ in range(150):
    error = ((render(weights) - pixels) ** 2).mean(dim=(1, 2))
    adam.zero_grad()
    error.sum().backward()  # networks do not meet: each gets its own gradient
    adam.step()
print(f"{len(pixels)} networks, median error {error.median():.4f}")

# %%
# ## A neural functional
#
# Features are channels-last: a tensor of shape `(networks, *axes, channels)`, here with one channel.
# `HNP` is the group that permutes hidden neurons and leaves inputs and outputs alone, which is what this task needs.
#
# Linear NF-layers learn slowly from the weights of SIRENs: the weights are close to their random start, and what they do is
# multiply. `SignedMessages` multiplies features of neurons by weights. It respects permutations, and also the sign flips
# of sine neurons.

features = nfn_torch.WeightSpaceFeatures({name: w.detach()[..., None] for name, w in weights.items()})
order = torch.randperm(len(labels))
train, test = order[:-200], order[-200:]
group = space.group("HNP")
known = features.map(lambda x: x[train].numpy())
layer = nfn_core.SignedMessages.from_features(space, known, outputs=4, omega=OMEGA, channels=32, points=32, head=(64,))
network = nfn_torch.NFModule(layer, seed=0)
print(network)

# %%
# Training is plain PyTorch.


def accuracy(index):
    """Share of networks whose digit is found."""
    network.eval()
    with torch.no_grad():
        found = network(features.map(lambda x: x[index])).argmax(dim=1)
    return (found == labels[index]).float().mean().item()


optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=400)
losses = []
for _ in range(400):
    network.train()
    batch = train[torch.randint(len(train), (64,))]
    loss = torch.nn.functional.cross_entropy(network(features.map(lambda x, b=batch: x[b])), labels[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    losses.append(loss.item())
print(f"accuracy on training networks {accuracy(train):.2f}, on test networks {accuracy(test):.2f}; chance 0.25")

# %%
# Permuting the hidden neurons of a network does not change its image, and does not change the prediction.

few = features.map(lambda x: x[test[:5]])
permuted = nfn_torch.WeightSpaceFeatures(group.act(group.sample(seed=1), few))
with torch.no_grad():
    change = (network(permuted) - network(few)).abs().max()
print(f"largest change of a logit when neurons are permuted: {change:.1e}")

# %%
# ![What the first networks draw, and the training loss](../assets/classify_inrs_torch.png)

figure = plt.figure(figsize=(8, 2.6), layout="constrained")
left, right = figure.subfigures(1, 2)
drawn = render(weights).detach().reshape(-1, 8, 8)
for panel, image in zip(left.subplots(2, 4).flat, drawn, strict=False):
    panel.imshow(image.numpy(), cmap="gray", vmin=-1, vmax=1)
    panel.set_axis_off()
left.suptitle("images that the networks encode")
panel = right.subplots()
panel.plot(np.convolve(losses, np.ones(20) / 20, mode="valid"))
panel.set_xlabel("step")
panel.set_ylabel("training loss")
figure.savefig("classify_inrs_torch.png", dpi=120)
