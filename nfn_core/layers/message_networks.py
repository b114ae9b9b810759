"""Networks of messages: encode neurons, exchange messages, read out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nfn_core.arrays import Array, namespace_of
from nfn_core.checks import (
    check_choice,
    check_counts,
    check_flags,
    check_kind,
    natural_int,
    positive_int,
    positive_ints,
    real_number,
)
from nfn_core.errors import SpecError
from nfn_core.groups import Group
from nfn_core.layers.base import Execution, Layer
from nfn_core.layers.composite import Composite
from nfn_core.layers.elementwise import ACTIVATIONS, Activation, Gate
from nfn_core.layers.messages import MessageReadout, Messages, TensorUpdate
from nfn_core.layers.networks import NORMS, MLPHead, Sequential, layers_before
from nfn_core.layers.neurons import MessageState, NeuronPool, neuron_group
from nfn_core.layers.nf import NFLayer, PointwiseLayer
from nfn_core.layers.norms import BatchNorm
from nfn_core.layers.phases import NeuronPhases
from nfn_core.spaces import WeightSpace

__all__ = ["MessageBlock", "MessageInput", "message_network"]


@dataclass(frozen=True)
class MessageInput(Composite):
    """State of a message network from features: normalized tensors, and neurons encoded by layers side by side.

    Parameters
    ----------
    before : Layer
        Applied to the tensors first (`Normalize`, say; an empty `Sequential` for none).
    pooled : NeuronPool
        Features of neurons from the tensors after that.
    phases : NeuronPhases, optional
        Features of neurons from the tensors as they came.

    Raises
    ------
    SpecError
        If one of them is no such layer.
    """

    before: Layer
    pooled: NeuronPool
    phases: NeuronPhases | None = None

    def __post_init__(self) -> None:
        check_kind("before", self.before, Layer)
        check_kind("pooled", self.pooled, NeuronPool)
        check_kind("phases", self.phases, NeuronPhases | None)

    def children(self) -> dict[str, Layer]:
        """Return the layers by their argument's name."""
        given = {"before": self.before, "pooled": self.pooled}
        return given if self.phases is None else given | {"phases": self.phases}

    def forward(self, params: Mapping[str, Array], x: Any, execution: Execution) -> MessageState:
        """Return the state; neurons have the channels of both encodings."""
        tensors = self.call("before", params, x, execution)
        neurons = self.call("pooled", params, tensors, execution)
        if self.phases is not None:
            phases = self.call("phases", params, x, execution)
            xp = namespace_of(*neurons.values())
            neurons = {s: xp.concat([y, phases[s]], axis=-1) for s, y in neurons.items()}
        return MessageState(tensors, neurons)


@dataclass(frozen=True)
class MessageBlock(Composite):
    """The building block: messages to neurons, their update, and where asked an update of the tensors.

    Messages are normalized and set beside each neuron's own features; an NF-layer on neurons mixes both and hears from
    the means of all sets; the result is normalized, activated or gated, and added to what was there if that has as many
    channels. Tensors then hear from the new neurons in the same way, beside a linear map of their own entries.

    Parameters
    ----------
    group : Group
        The group, with its weight space.
    tensor_channels, in_channels, out_channels : int
        Channels of the tensors, and of the neurons before and after.
    new_tensor_channels : int, optional
        Channels of the updated tensors; without it the tensors stay.
    norm : {"layer", "batch", "set", "instance"}, optional
        Normalization of messages and updates.
    activation : str
        Elementwise map.
    gate : bool
        Whether the activated half of twice the channels multiplies the other half.

    Raises
    ------
    SpecError
        If an option is unknown or a number is not positive.
    """

    group: Group
    tensor_channels: int
    in_channels: int
    out_channels: int
    new_tensor_channels: int | None = None
    norm: str | None = "batch"
    activation: str = "silu"
    gate: bool = True

    def __post_init__(self) -> None:
        neuron_group(self.group)
        check_counts(self, "tensor_channels", "in_channels", "out_channels")
        check_flags(self, "gate")
        if self.new_tensor_channels is not None:
            check_counts(self, "new_tensor_channels")
        if self.norm is not None:
            check_choice("norm", self.norm, tuple(NORMS))
        check_choice("activation", self.activation, tuple(ACTIVATIONS))

    def children(self) -> dict[str, Layer]:
        """Return messages, update and what normalizes and activates them, and the same for tensors."""
        neurons, wide = neuron_group(self.group), 2 if self.gate else 1
        act: Layer = Gate(self.activation) if self.gate else Activation(self.activation)
        out = self.out_channels
        found: dict[str, Layer] = {
            "messages": Messages(self.group, self.tensor_channels, self.in_channels, out),
            "message_norm": _norm(self.norm, neurons.space, out),
            "update": NFLayer(neurons, self.in_channels + out, wide * out),
            "norm": _norm(self.norm, neurons.space, wide * out),
            "activation": act,
        }
        if self.new_tensor_channels is not None:
            new = self.new_tensor_channels
            found |= {
                "tensors": TensorUpdate(self.group, self.tensor_channels, out, wide * new),
                "tensor_norm": _norm(self.norm, self.group.space, wide * new),
                "own": PointwiseLayer(self.group, self.tensor_channels, new),
            }
        return found

    def forward(self, params: Mapping[str, Array], x: MessageState, execution: Execution) -> MessageState:
        """Return the state after the block."""
        came = self.call("message_norm", params, self.call("messages", params, x, execution), execution)
        xp = namespace_of(*came.values())
        y: Any = {s: xp.concat([x.neurons[s], m], axis=-1) for s, m in came.items()}
        for child in ("update", "norm", "activation"):
            y = self.call(child, params, y, execution)
        if self.in_channels == self.out_channels:
            y = {s: x.neurons[s] + change for s, change in y.items()}
        if self.new_tensor_channels is None:
            return MessageState(x.tensors, y)
        new: Any = MessageState(x.tensors, y)
        for child in ("tensors", "tensor_norm", "activation"):
            new = self.call(child, params, new, execution)
        own = self.call("own", params, x.tensors, execution)
        return MessageState({name: own[name] + change for name, change in new.items()}, y)


def message_network(
    group: Group,
    in_channels: int,
    channels: int,
    blocks: int = 2,
    *,
    head: Sequence[int] = (),
    out_channels: int | None = None,
    before: Sequence[Layer] = (),
    omega: float | None = None,
    points: int = 32,
    norm: str | None = "batch",
    activation: str = "silu",
    gate: bool = True,
    head_dropout: float = 0.0,
) -> Sequential:
    """Network of messages, with invariant or equivariant output.

    Parameters
    ----------
    group : Group
        The group, with its weight space.
    in_channels : int
        Channels of the features.
    channels : int
        Channels of each neuron.
    blocks : int
        Number of message blocks.
    head : sequence of int
        Hidden widths and outputs of the head, for invariant output of shape (batch, head[-1]).
    out_channels : int, optional
        Channels of the output features, for equivariant output; give this or `head`.
    before : sequence of Layer
        Normalization of the tensors along which messages go; phases see them as they come.
    omega : float, optional
        Frequency of a sine network: its neurons are encoded by their phases too.
    points : int
        Number of learned points of the phases.
    norm : {"layer", "batch", "set", "instance"}, optional
        Normalization in blocks; with ``"batch"`` also of the pooled invariants.
    activation, gate : str, bool
        As in `MessageBlock`.
    head_dropout : float
        Rate of dropout in the head.

    Returns
    -------
    Sequential
        The network.

    Raises
    ------
    SpecError
        If not exactly one of `head` and `out_channels` comes, or an option is unknown.

    Examples
    --------
    >>> from nfn_core import WeightSpace
    >>> group = WeightSpace.mlp([2, 32, 32, 1]).group("HNP")
    >>> len(message_network(group, 1, 64, head=[256, 10], omega=30.0).layers)
    6
    """
    in_channels, channels = positive_int("in_channels", in_channels), positive_int("channels", channels)
    head, blocks, points = positive_ints("head", head), natural_int("blocks", blocks), positive_int("points", points)
    head_dropout = real_number("head_dropout", head_dropout, "[0, 1)")
    if bool(head) == (out_channels is not None):
        raise SpecError("give either head (invariant output) or out_channels (equivariant output), and not both.")
    first = layers_before(before)
    width = first.channels_after(in_channels)
    phases = None if omega is None else NeuronPhases(group, channels, omega, points)
    layers: list[Layer] = [MessageInput(first, NeuronPool(group, width, channels), phases)]
    came = channels if phases is None else 2 * channels
    for _ in range(blocks):
        layers.append(MessageBlock(group, width, came, channels, None, norm, activation, gate))
        came = channels
    if out_channels is not None:
        return Sequential((*layers, TensorUpdate(group, width, came, out_channels)))
    readout = MessageReadout(group, width, came)
    total = readout.num_outputs * came
    layers.append(readout)
    if norm == "batch":
        layers.append(BatchNorm(None, total))
    return Sequential((*layers, MLPHead((total, *head), activation, head_dropout)))


def _norm(kind: str | None, space: WeightSpace, channels: int) -> Layer:
    """Normalization by name, or an empty sequence."""
    return Sequential(()) if kind is None else NORMS[kind](space, channels)
