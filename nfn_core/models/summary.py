"""How large an NF-layer of a model's weight space would be, what makes it so, and what would not: before it is built."""

from glob import escape
from math import prod
from typing import TYPE_CHECKING

from nfn_core.layers.nf import NFLayer

if TYPE_CHECKING:
    from nfn_core.groups import Group
    from nfn_core.models.model_space import ModelSpace

__all__ = ["CHANNELS", "LIMIT", "layer_size", "summary"]

CHANNELS = 16
"""Channels in and out, unless others are asked for."""

LIMIT = 10**9
"""Parameters of one NF-layer above which a group is warned of."""


def layer_size(group: "Group", channels: int = CHANNELS) -> int:
    """Number of parameters of an NF-layer's linear part."""
    return NFLayer(group, channels, channels).linear_parameter_count


def summary(space: "ModelSpace", channels: int = CHANNELS) -> str:
    """Sizes of an NF-layer under both groups, and what makes it large; see `ModelSpace.summary`."""
    lines = [f"| group | parameters of an NF-layer, {channels} to {channels} channels |", "|---|---|"]
    for name in ("NP", "HNP"):
        group = space.space.group(name)
        lines.append(f"| {name}, {len(group.permuted)} sets move | {_shown(layer_size(group, channels))} |")
    for name in ("NP", "HNP"):
        group = space.space.group(name)
        if layer_size(group, channels) > LIMIT:
            lines += ["", *_advice(space, group, name, channels)]
    return "\n".join(lines)


def _advice(space: "ModelSpace", group: "Group", name: str, channels: int) -> list[str]:
    """The tensors with the most fixed entries, and the size without them."""
    moved, why = set(group.permuted), dict(space.fixed)
    widths: dict[str, int] = {}
    for view in space.views:
        for axes in view.pieces.values():
            width = prod(a.size for a in axes if a.label not in moved)
            widths[view.name] = max(width, widths.get(view.name, 0))
    left_alone = {a.label for v in space.views for axes in v.pieces.values() for a in axes if a.label} - moved
    lines = [f"Under {name} these tensors have the most fixed entries, which are channels of the layer:"]
    dropped: list[str] = []
    for tensor, width in sorted(widths.items(), key=lambda item: -item[1])[:8]:
        view = next(v for v in space.views if v.name == tensor)
        sets = sorted({a.label for axes in view.pieces.values() for a in axes if a.label in left_alone and a.size > 1})
        reasons = [
            *(f"set {label!r} is left alone by {name}" for label in sets),
            *([why[tensor]] if tensor in why else []),
        ]
        lines.append(f"* {tensor!r} ({view.pattern}), {width:,} each: {'; '.join(reasons)}")
        dropped.append(tensor)
        size = _without(space, dropped, name, channels)
        if size is not None and size <= LIMIT:
            break
    size = _without(space, dropped, name, channels)
    if size is not None:
        patterns = ", ".join(repr(p) for p in ("*", *(f"!{tensor}" for tensor in dropped)))
        lines.append(f"Without them, `space.only([{patterns}])`, it has {_shown(size)}.")
    return lines


def _without(space: "ModelSpace", dropped: list[str], name: str, channels: int) -> int | None:
    """Size without some tensors, None if none is left."""
    if len(dropped) == len(space.views):
        return None
    return layer_size(space.only(["*", *(f"!{escape(tensor)}" for tensor in dropped)]).space.group(name), channels)


def _shown(count: int) -> str:
    return f"{count:.2g}" if count >= LIMIT else f"{count:,}"
