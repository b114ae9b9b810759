"""SIRENs, fitted many at once, and image INRs made of them (paper, section D.3).

A SIREN of an image maps pixel coordinates in [-1, 1]² to brightness in [-1, 1]: x -> W3 sin(ω (W2 sin(ω (W1 x + v1)) + v2)) + v3.
Its weights are stored as they stand in this formula, without ω = 30 (the convention of the paper's code and of DWSNets);
`fold_omega` gives the other convention in circulation, sin(W x + v) with ω in the weights.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from nfn_core import WeightSpace
from nfn_core.arrays import AnyArray, device_of, namespace_of
from reference_experiments.engines.base import Engine, State, blocks, engine

__all__ = [
    "CONVENTION",
    "OMEGA",
    "STARTS",
    "coordinates",
    "draw",
    "evaluate",
    "fit",
    "fold_omega",
    "initial",
    "learning_rates",
    "psnr",
    "render",
]


OMEGA = 30.0


CONVENTION = {
    "omega_0": OMEGA,
    "convention": "sin(omega_0 (W x + v)); the stored weights are without omega_0",
}
"""What a dataset says of its weights."""


STARTS = ("sitzmann", "dwsnets", "shared")
"""Initial weights in circulation: the paper's, those of DWSNets' datasets, and one network's for all (for comparison)."""


BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


LOOK = 10
"""Steps between two looks at the quality that ends a fit."""


def coordinates(height: int, width: int) -> np.ndarray:
    """Coordinates of pixels in [-1, 1], shape (2, height * width): rows, then columns."""
    axes = (np.linspace(-1, 1, n, dtype=np.float32) for n in (height, width))
    return np.stack(np.meshgrid(*axes, indexing="ij")).reshape(2, -1)


def initial(space: WeightSpace, seed: int, numbers: np.ndarray, start: str = "sitzmann") -> dict[str, np.ndarray]:
    """Initial weights, a function of seed and each network's number alone.

    Weights of the first layer are uniform in ±1/inputs, of the others in ±√(6/inputs)/ω (Sitzmann et al. 2020), biases
    in ±1/√inputs (PyTorch's default, which the published SIRENs have). In DWSNets' datasets the first layer is drawn as
    the others, and biases are 0.

    Parameters
    ----------
    space : WeightSpace
        Weight space of an MLP.
    seed : int
        The dataset's seed.
    numbers : numpy.ndarray
        Numbers of the networks, shape (networks,).
    start : {"sitzmann", "dwsnets", "shared"}
        How they are drawn; ``"shared"`` gives all the weights of network 0.

    Returns
    -------
    dict of str to numpy.ndarray
        Tensors of shape (networks, *axes), float32.
    """
    if start == "shared":
        numbers = np.zeros_like(numbers)
    streams = [np.random.Generator(np.random.Philox(key=[seed, n])) for n in numbers.tolist()]
    found = {}
    for t in space.tensors:
        inputs = space.by_name[f"W{t.name[1:]}"].shape[1]
        if t.name.startswith("v"):
            bound = 0.0 if start == "dwsnets" else inputs**-0.5
        elif t.name == "W1" and start != "dwsnets":
            bound = 1 / inputs
        else:
            bound = (6 / inputs) ** 0.5 / OMEGA
        draws = np.stack([stream.uniform(-bound, bound, t.shape) for stream in streams])
        found[t.name] = draws.astype(np.float32)
    return found


def render(weights: Mapping[str, Any], points: Any, sin: Any) -> Any:
    """Values of SIRENs at points.

    Parameters
    ----------
    weights : mapping of str to array
        Tensors of shape (networks, *axes), in this module's convention.
    points : array
        Coordinates, shape (inputs, points), or (networks, inputs, points) where each network has its own.
    sin : callable
        The sine of an array.

    Returns
    -------
    array
        Shape (networks, channels, points).
    """
    xp, depth = namespace_of(points), len(weights) // 2
    x = points
    for i in range(1, depth + 1):
        x = xp.matmul(weights[f"W{i}"], x) + xp.expand_dims(weights[f"v{i}"], axis=-1)
        if i < depth:
            x = sin(OMEGA * x)
    return x


def draw(features: Mapping[str, AnyArray], height: int, width: int) -> AnyArray:
    """Draw the images that SIRENs encode.

    Parameters
    ----------
    features : mapping of str to array
        Weights, each of shape (batch, *axes, 1), in this module's convention.
    height, width : int
        Pixels.

    Returns
    -------
    array
        Brightness, where the image has some in [-1, 1], shape (batch, height, width, channels).
    """
    xp: Any = namespace_of(*features.values())
    like = next(iter(features.values()))
    points = xp.asarray(coordinates(height, width), dtype=like.dtype, device=device_of(like))
    values = xp.permute_dims(render({name: x[..., 0] for name, x in features.items()}, points, xp.sin), (0, 2, 1))
    images: AnyArray = xp.reshape(values, (values.shape[0], height, width, values.shape[2]))
    return images


def fold_omega(weights: Mapping[str, np.ndarray], *, undo: bool = False) -> dict[str, np.ndarray]:
    """Weights with ω multiplied into all layers but the last, so that a layer is sin(W x + v); or the way back."""
    last = f"{len(weights) // 2}"
    factor = np.float32(1 / OMEGA if undo else OMEGA)
    return {name: x if name[1:] == last else x * factor for name, x in weights.items()}


def learning_rates(learning_rate: float, steps: int, cosine: bool) -> np.ndarray:
    """Learning rate of each step, shape (steps,): constant, or falling to 0 along a cosine."""
    turns = np.arange(steps, dtype=np.float32)
    return learning_rate * (0.5 + 0.5 * np.cos(np.pi * turns / steps) if cosine else turns**0)


def fit(
    library: Engine,
    weights: Mapping[str, np.ndarray],
    targets: np.ndarray,
    points: np.ndarray,
    rates: np.ndarray,
    chosen: np.ndarray | None = None,
    until: float | None = None,
) -> dict[str, np.ndarray]:
    """Fit SIRENs by Adam on the mean squared error.

    Parameters
    ----------
    library : Engine
        Array library.
    weights : mapping of str to numpy.ndarray
        Initial weights, tensors of shape (networks, *axes).
    targets : numpy.ndarray
        Values to fit, shape (networks, channels, points).
    points : numpy.ndarray
        Coordinates, shape (inputs, points), or (networks, inputs, points) where each network has its own.
    rates : numpy.ndarray
        Learning rate of each step, shape (steps,).
    chosen : numpy.ndarray, optional
        Numbers of the points that each step takes of each network's own, shape (steps, networks, batch), int64; by
        default every step takes all points.
    until : float, optional
        Peak signal-to-noise ratio (dB, of a range of 2) at which a network is done; it is looked at every `LOOK` steps.

    Returns
    -------
    dict of str to numpy.ndarray
        Fitted weights.
    """
    run = _program(library.name, tuple(weights))
    turns = np.arange(1, len(rates) + 1, dtype=np.float32)
    corrected = np.stack([rates / (1 - BETA1**turns), 1 - BETA2**turns], axis=1).astype(np.float32)
    fitted: dict[str, list[np.ndarray]] = {name: [] for name in weights}
    for part in blocks(library.block, len(targets)):
        state = {"target": library.array(targets[part]), "points": library.array(_own(points, part))}
        for name, w in weights.items():
            zeros = np.zeros_like(w[part])
            state |= {name: library.array(w[part]), f"{name} mean": library.array(zeros)}
            state[f"{name} second_moment"] = library.array(zeros)
        rows = {"rate": corrected} | ({} if chosen is None else {"chosen": chosen[:, part]})
        done = np.zeros(len(targets[part]), bool)
        kept: dict[str, np.ndarray] = {}
        for start in range(0, len(rates), LOOK if until is not None else len(rates)):
            stop = len(rates) if until is None else start + LOOK
            state = run(state, {name: library.array(x[start:stop]) for name, x in rows.items()})
            now = {name: library.numpy(state[name]) for name in weights}
            kept = {
                name: np.where(done.reshape(-1, *[1] * (x.ndim - 1)), kept.get(name, x), x) for name, x in now.items()
            }
            if until is not None:
                done |= psnr(evaluate(library, kept, _own(points, part)), targets[part]) >= until
            if done.all():
                break
        for name in weights:
            fitted[name].append(kept[name])
    return {name: np.concatenate(parts) for name, parts in fitted.items()}


def evaluate(library: Engine, weights: Mapping[str, np.ndarray], points: np.ndarray) -> np.ndarray:
    """Values of SIRENs at points, shape (networks, channels, points), computed by a library; arguments as in `fit`."""
    count = len(next(iter(weights.values())))
    return np.concatenate(
        [
            library.numpy(
                render(
                    {name: library.array(w[part]) for name, w in weights.items()},
                    library.array(_own(points, part)),
                    library.sin,
                )
            )
            for part in blocks(library.block, count)
        ]
    )


def psnr(values: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of values in [-1, 1], shape (networks, channels, points): dB, shape (networks,)."""
    return np.asarray(10 * np.log10(4 / np.mean((values - targets) ** 2, axis=(1, 2))))


def _own(points: np.ndarray, part: slice) -> np.ndarray:
    """Points of some of the networks, or those of all."""
    return points if points.ndim == 2 else points[part]


@cache
def _program(backend: str, names: tuple[str, ...]) -> Any:
    """The whole fit as one loop of the library, compiled once for each shape."""
    library = engine(backend)

    def loss(weights: State, target: Any, points: Any) -> Any:
        xp = namespace_of(points)
        error = render(weights, points, library.sin) - target
        return xp.sum(xp.mean(error * error, axis=(1, 2)))  # networks do not interact: each gets its own gradient

    gradient = library.grad(loss)

    def step(state: State, row: State) -> State:
        target, points, rate = state["target"], state["points"], row["rate"]
        xp = namespace_of(points)
        if "chosen" in row:
            index = xp.expand_dims(row["chosen"], axis=1)
            target, points = (xp.take_along_axis(x, index, axis=2) for x in (target, points))
        new, grads = dict(state), gradient({name: state[name] for name in names}, target, points)
        for name in names:
            mean = BETA1 * state[f"{name} mean"] + (1 - BETA1) * grads[name]
            second_moment = BETA2 * state[f"{name} second_moment"] + (1 - BETA2) * grads[name] ** 2
            change = rate[0] * mean / (xp.sqrt(second_moment / rate[1]) + EPSILON)
            new |= {name: state[name] - change, f"{name} mean": mean, f"{name} second_moment": second_moment}
        return new

    return library.loop(step)
