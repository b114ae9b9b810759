"""Optimizers of many small networks at once."""

from typing import Any

__all__ = ["OPTIMIZERS", "optimizer_step"]


OPTIMIZERS = ("momentum", "sgd", "adam", "rmsprop")


MOMENTUM = 0.9


def optimizer_step(
    optimizer: str, grad: Any, momentum: Any, second_moment: Any, turn: Any, xp: Any
) -> tuple[Any, tuple[Any, Any]]:
    """Return the change for a learning rate of 1, and the new moments.

    Parameters
    ----------
    optimizer : str
        One of `OPTIMIZERS`, with the usual constants.
    grad : array
        Gradient, shape (models, *axes).
    momentum, second_moment : array
        Moments of the same shape.
    turn : array
        Number of this step, from 1, without axes.
    xp : module
        Array namespace of the gradient.

    Returns
    -------
    array, tuple of (array, array)
        What the learning rate multiplies, and the two moments, all of the gradient's shape.
    """
    if optimizer == "sgd":
        return grad, (momentum, second_moment)
    if optimizer == "momentum":
        momentum = MOMENTUM * momentum + grad
        return momentum, (momentum, second_moment)
    if optimizer == "rmsprop":
        second_moment = 0.9 * second_moment + 0.1 * grad**2
        return grad / (xp.sqrt(second_moment) + 1e-7), (momentum, second_moment)
    momentum, second_moment = 0.9 * momentum + 0.1 * grad, 0.999 * second_moment + 0.001 * grad**2
    return momentum / (1 - 0.9**turn) / (xp.sqrt(second_moment / (1 - 0.999**turn)) + 1e-7), (momentum, second_moment)
