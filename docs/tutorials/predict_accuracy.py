"""# Predict accuracies of your own models

Many small classifiers are trained, each with its own learning rate and number of steps. A neural functional then predicts
the test accuracy of a classifier from its weights. The weight space is derived from the module itself.

You need `pip install "nfn-core[torch]" matplotlib scikit-learn scipy`.
"""

import matplotlib.pyplot as plt
import nfn_torch
import torch
from scipy.stats import kendalltau
from sklearn.datasets import load_digits
from torch.func import functional_call, grad, stack_module_state, vmap

import nfn_core

torch.manual_seed(0)

# %%
# ## 400 classifiers of digits
#
# `torch.func` trains them side by side. Put your own checkpoints here instead.

images, labels = (torch.tensor(x) for x in load_digits(return_X_y=True))
images = images.float() / 16
train, test = slice(0, 1200), slice(1200, None)
models = [torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10)) for _ in range(400)]
weights, _ = stack_module_state(models)
rate = 10 ** torch.empty(400).uniform_(-2.5, 0)
steps = torch.randint(5, 150, (400,))


def loss(weights, x, y):
    """Cross-entropy of one classifier."""
    return torch.nn.functional.cross_entropy(functional_call(models[0], weights, (x,)), y)


for step in range(150):
    batch = torch.randint(1200, (400, 32))
    grads = vmap(grad(loss))(weights, images[batch], labels[batch])
    moving = rate * (step < steps)
    weights = {n: w.detach() - moving.view(-1, *[1] * (w.ndim - 1)) * grads[n] for n, w in weights.items()}
with torch.no_grad():
    scores = vmap(lambda w: functional_call(models[0], w, (images[test],)))(weights)
accuracy = (scores.argmax(-1) == labels[test]).float().mean(1)
print(f"accuracies from {accuracy.min():.2f} to {accuracy.max():.2f}")

# %%
# ## Their weight space
#
# `weight_space` traces the module, finds which axes share neurons, and verifies it by running permuted networks.

space = nfn_torch.weight_space(models[0], images[:2])
print(space.describe())
states = [{name: w[k] for name, w in weights.items()} for k in range(400)]
features = nfn_torch.stack(space, states, detach=True)

# %%
# ## A predictor

group = space.group("HNP")
normalize = nfn_core.Normalize.from_features(space.space, features.map(lambda x: x[:300].numpy()))
network = nfn_torch.NFModule(nfn_core.invariant_network(group, [1, 8, 8], head=[64, 1], before=[normalize]))
optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
for _ in range(200):
    batch = torch.randint(300, (32,))
    predicted = network(features.map(lambda x, b=batch: x[b]))[:, 0]
    error = torch.nn.functional.binary_cross_entropy_with_logits(predicted, accuracy[batch])
    optimizer.zero_grad()
    error.backward()
    optimizer.step()
with torch.no_grad():
    predicted = network(features.map(lambda x: x[300:]))[:, 0]
tau = kendalltau(predicted, accuracy[300:]).statistic
print(f"Kendall's tau on 100 unseen classifiers: {tau:.2f}")

# %%
# ![Predicted and measured accuracies of unseen classifiers](../assets/predict_accuracy.png)

figure, panel = plt.subplots(figsize=(4, 4), layout="constrained")
panel.plot([0, 1], [0, 1], color="gray", linewidth=1)
panel.scatter(accuracy[300:].numpy(), predicted.sigmoid().numpy(), s=12)
panel.set(xlabel="measured test accuracy", ylabel="predicted from the weights", title=f"Kendall's tau {tau:.2f}")
figure.savefig("predict_accuracy.png", dpi=120)
