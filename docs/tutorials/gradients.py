"""# Learn on gradients

Gradients and optimizer moments have the axes of the weights. They are further channels of the same weight space. Here an
equivariant network sees weights and gradients, and predicts the step of another optimizer.

You need `pip install "nfn-core[torch]" matplotlib`.
"""

import matplotlib.pyplot as plt
import nfn_torch
import torch

import nfn_core

torch.manual_seed(0)

# %%
# ## Weights and gradients as channels

models = [torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)) for _ in range(256)]
for model in models:
    model(torch.randn(16, 4)).square().mean().backward()
space = nfn_torch.weight_space(models[0], torch.zeros(1, 4))
grads = [{name: p.grad for name, p in model.named_parameters()} for model in models]
features = nfn_torch.stack(space, models, grads, detach=True)  # data: no gradients to the models
print({name: tuple(x.shape) for name, x in features.items()})

# %%
# ## A learned rule
#
# The target is a step of sign descent with weight decay.

target = features.map(lambda x: -0.1 * x[..., 1:].sign() - 0.01 * x[..., :1])
group = space.group("HNP")
normalize = nfn_core.Normalize.from_features(space.space, features.map(lambda x: x[:200].numpy()))
rule = nfn_torch.NFModule(nfn_core.equivariant_network(group, [2, 32, 32, 1], before=[normalize]))


def error(index):
    """Mean squared error of the predicted steps."""
    predicted = rule(features.map(lambda x: x[index]))
    return torch.cat([(predicted[n] - target[n][index]).flatten() for n in predicted]).square().mean()


with torch.no_grad():
    before = error(slice(200, None))
optimizer = torch.optim.AdamW(rule.parameters(), lr=3e-3)
for _ in range(300):
    loss = error(torch.randint(200, (32,)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
with torch.no_grad():
    after = error(slice(200, None))
print(f"error on unseen networks: before {before:.5f}, after {after:.5f}")

# %%
# The learned steps go back into modules.

with torch.no_grad():
    steps = nfn_torch.unstack(space, rule(features), like=models[0].state_dict())
print({name: tuple(x.shape) for name, x in steps[0].items()})

# %%
# ![Predicted steps and steps of sign descent for unseen networks](../assets/gradients.png)

figure, panel = plt.subplots(figsize=(4, 4), layout="constrained")
with torch.no_grad():
    predicted = rule(features.map(lambda x: x[200:]))
for name in predicted:
    panel.scatter(target[name][200:].flatten().numpy(), predicted[name].flatten().numpy(), s=2, label=name)
panel.set(xlabel="step of sign descent with weight decay", ylabel="step of the learned rule")
panel.legend(markerscale=4)
figure.savefig("gradients.png", dpi=120)
