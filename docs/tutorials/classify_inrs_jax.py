"""# Classify INRs in JAX

A SIREN is fitted to each of some handwritten digits, and a neural functional reads the digit from the weights. The
parameters are a plain dictionary, and `nfn_jax.apply` is a pure function.

You need `pip install "nfn-core[jax]" optax matplotlib scikit-learn`.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import nfn_jax
import numpy as np
import optax
from sklearn.datasets import load_digits

import nfn_core

# %%
# ## A dataset of networks
#
# One SIREN for each image of the digits 0 to 3. `vmap` fits all of them at once.

digits = load_digits(n_class=4)
pixels = jnp.asarray(digits.images / 8 - 1, jnp.float32).reshape(-1, 1, 64)
space = nfn_core.WeightSpace.mlp([2, 16, 16, 1])
OMEGA = 10.0
axis = jnp.linspace(-1, 1, 8)
points = jnp.stack(jnp.meshgrid(axis, axis, indexing="ij")).reshape(2, 64)


def render(weights):
    """Brightness of every pixel of one SIREN, (1, 64)."""
    x = points
    for i in (1, 2, 3):
        x = weights[f"W{i}"] @ x + weights[f"v{i}"][:, None]
        x = jnp.sin(OMEGA * x) if i < 3 else x
    return x


def initial(key):
    """SIREN initialization (Sitzmann et al. 2020)."""
    bounds = {"W1": 0.5, "W2": (6 / 16) ** 0.5 / OMEGA, "W3": (6 / 16) ** 0.5 / OMEGA}
    keys = jax.random.split(key, len(space.tensors))
    return {
        t.name: jax.random.uniform(k, t.shape, minval=-1, maxval=1) * bounds.get(t.name, 0.25)
        for t, k in zip(space.tensors, keys, strict=True)
    }


@jax.jit
@jax.vmap
def fit(key, image):
    """Fit one SIREN to one image by Adam."""
    adam = optax.adam(5e-3)

    def step(state, _):
        weights, moments = state
        grads = jax.grad(lambda w: jnp.mean((render(w) - image) ** 2))(weights)
        change, moments = adam.update(grads, moments)
        return (optax.apply_updates(weights, change), moments), None

    weights = initial(key)
    return jax.lax.scan(step, (weights, adam.init(weights)), length=150)[0][0]


weights = fit(jax.random.split(jax.random.key(0), len(pixels)), pixels)
print(f"{len(pixels)} networks, error {jnp.mean((jax.vmap(render)(weights) - pixels) ** 2):.4f}")

# %%
# ## A neural functional

features = {name: w[..., None] for name, w in weights.items()}
labels = jnp.asarray(digits.target)
order = np.random.default_rng(0).permutation(len(labels))
train, test = order[:-200], order[-200:]
known = {name: np.asarray(x[train]) for name, x in features.items()}
network = nfn_core.SignedMessages.from_features(
    space, known, 4, omega=OMEGA, channels=32, points=32, head=(64,), dropout=0.0
)
print(network)

# %%
# ## Training
#
# Running statistics travel with the parameters as constants. `nfn_jax.trainable` is a mask for optax.
# `apply_in_training` normalizes by the batch, and returns the new constants.

params = nfn_jax.init(network, 0)
steps = 300
adamw = optax.masked(optax.adamw(optax.cosine_onecycle_schedule(steps, 3e-3)), nfn_jax.trainable(network))
moments = adamw.init(params)


@jax.jit
def update(params, moments, batch):
    """One step; `batch` are numbers of networks."""

    def loss(params):
        chosen = {name: x[batch] for name, x in features.items()}
        logits, constants = nfn_jax.apply_in_training(network, params, chosen)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[batch]).mean(), constants

    (value, constants), grads = jax.value_and_grad(loss, has_aux=True)(params)
    change, moments = adamw.update(grads, moments, params)
    return optax.apply_updates(params, change) | constants, moments, value


rng, losses = np.random.default_rng(1), []
for _ in range(steps):
    params, moments, value = update(params, moments, rng.choice(train, 64))
    losses.append(float(value))
found = nfn_jax.apply(network, params, {name: x[test] for name, x in features.items()}).argmax(axis=1)
accuracy = float((found == labels[test]).mean())
print(f"accuracy on test networks {accuracy:.2f}; chance 0.25")

# %%
# ![Images of test networks with the digits read from their weights, and the training loss](../assets/classify_inrs_jax.png)

figure = plt.figure(figsize=(8, 2.8), layout="constrained")
left, right = figure.subfigures(1, 2)
drawn = jax.vmap(render)({name: w[test[:8]] for name, w in weights.items()}).reshape(-1, 8, 8)
for panel, image, digit in zip(left.subplots(2, 4).flat, drawn, found, strict=False):
    panel.imshow(np.asarray(image), cmap="gray", vmin=-1, vmax=1)
    panel.set_title(f"read: {digit}", fontsize=8)
    panel.set_axis_off()
panel = right.subplots()
panel.plot(losses)
panel.set(xlabel="step", ylabel="training loss")
figure.savefig("classify_inrs_jax.png", dpi=120)
