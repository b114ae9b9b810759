"""# Edit a network

An equivariant network maps weights to weights. Here it learns to edit the weights of MLPs: each MLP fits a curve, and the
edited MLP should fit the same curve, shifted up and stretched. The editor never sees the curve, only the weights.

You need `pip install "nfn-core[torch]" matplotlib`.
"""

import matplotlib.pyplot as plt
import nfn_torch
import torch

import nfn_core

torch.manual_seed(0)

# %%
# ## Networks that fit curves

space = nfn_core.WeightSpace.mlp([1, 16, 16, 1])
points = torch.linspace(-1, 1, 32)[None]
count = 256
phase, speed = torch.rand(2, count, 1, 1) * torch.tensor([3.0, 2.0])[:, None, None, None]
curves = torch.sin((1 + speed) * points + phase)  # (networks, 1, points)


def values(weights):
    """Values of all networks at the points, (networks, 1, points)."""
    x = points
    for i in (1, 2, 3):
        x = weights[f"W{i}"] @ x + weights[f"v{i}"][..., None]
        x = torch.tanh(x) if i < 3 else x
    return x


weights = {
    t.name: (torch.randn(count, *t.shape) * (2.0 if t.name[1] == "1" else t.shape[-1] ** -0.5)).requires_grad_()
    for t in space.tensors
}
adam = torch.optim.Adam(weights.values(), lr=1e-2)
for _ in range(200):
    adam.zero_grad()
    ((values(weights) - curves) ** 2).mean(dim=(1, 2)).sum().backward()
    adam.step()

# %%
# ## An editor
#
# The output is the input plus a small change. `Scale` begins at 0.01, so that the edit begins near the identity.

features = nfn_torch.WeightSpaceFeatures({name: w.detach()[..., None] for name, w in weights.items()})
group = space.group("HNP")
normalize = nfn_core.Normalize.from_features(space, features.map(lambda x: x[:200].numpy()))
change = nfn_core.equivariant_network(group, [1, 16, 16, 1], before=[normalize])
editor = nfn_torch.NFModule(nfn_core.Residual(nfn_core.Sequential((change, nfn_core.Scale(space)))))
target = 1.5 * curves + 0.5


def error(index):
    """Mean squared error of edited networks."""
    edited = editor(features.map(lambda x: x[index]))
    return ((values({name: x[..., 0] for name, x in edited.items()}) - target[index]) ** 2).mean()


unedited = ((values({name: x[..., 0] for name, x in features.items()}) - target)[200:] ** 2).mean()
optimizer = torch.optim.AdamW(editor.parameters(), lr=3e-3)
for _ in range(300):
    loss = error(torch.randint(200, (32,)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
with torch.no_grad():
    edited = error(slice(200, None))
print(f"error on unseen networks: unedited {unedited:.3f}, edited {edited:.3f}")

# %%
# ![Curves of three unseen networks, before and after the edit](../assets/edit_network.png)

with torch.no_grad():
    after = values({name: x[..., 0] for name, x in editor(features.map(lambda x: x[200:203])).items()})
    before = values({name: x[200:203, ..., 0] for name, x in features.items()})
figure, panels = plt.subplots(1, 3, figsize=(9, 2.6), layout="constrained", sharey=True)
for panel, *curves_of_one in zip(panels, before, after, target[200:203], strict=True):
    for curve, label, style in zip(curves_of_one, ("unedited", "edited", "wanted"), ("-", "-", "k:"), strict=True):
        panel.plot(points[0].numpy(), curve[0].numpy(), style, label=label)
panels[0].legend(fontsize=8)
figure.savefig("edit_network.png", dpi=120)
