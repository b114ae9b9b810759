"""Studies of one change at a time: classification by SignedMessages and by gated NF-layers, and editing."""

from dataclasses import replace

from reference_experiments.experiments.base import Variant
from reference_experiments.experiments.classification import SIREN_MESSAGES, SIREN_SIGNS
from reference_experiments.experiments.editing import DILATE
from reference_experiments.methods.base import Gating

__all__ = ["DILATE_STUDY", "GATES_STUDY", "SIREN_STUDY"]

PLAIN = "SignedMessages without activations"
SIREN_VARIANTS = {
    "as it is": Variant(PLAIN),
    "activations": Variant("SignedMessages"),
    "no augmentation": Variant(PLAIN, {"augmentation": (0.0, 0.0, 0.0)}),
    "half the augmentation": Variant(PLAIN, {"augmentation": (0.1, 0.06, 0.05)}),
    "12,000 networks": Variant(PLAIN, networks=12_000),
    "12,000 networks, no augmentation": Variant(PLAIN, {"augmentation": (0.0, 0.0, 0.0)}, networks=12_000),
    "32 channels": Variant(PLAIN, {"messages": (64, 32)}),
    "128 points": Variant(PLAIN, {"messages": (128, 64)}),
    "16 points": Variant(PLAIN, {"messages": (16, 64)}),
    "learning rate 0.001": Variant(PLAIN, recipe={"learning_rate": 1e-3}),
    "learning rate 0.004": Variant(PLAIN, recipe={"learning_rate": 4e-3}),
    "weight decay 0": Variant(PLAIN, recipe={"weight_decay": 0.0}),
    "weight decay 0.03": Variant(PLAIN, recipe={"weight_decay": 0.03}),
    "batches of 16": Variant(PLAIN, recipe={"batch": 16}),
    "bfloat16": Variant(PLAIN, recipe={"dtype": "bfloat16"}),
}

SIREN_STUDY = replace(
    SIREN_MESSAGES,
    title="What SignedMessages owes to each of its parts: one change at a time",
    methods=tuple(SIREN_VARIANTS),
    makers={"MNIST": SIREN_MESSAGES.makers["MNIST"]},
    overrides={},
    variants=SIREN_VARIANTS,
    scales={
        **SIREN_MESSAGES.scales,
        "small": replace(
            SIREN_MESSAGES.scales["small"],
            recipe=replace(SIREN_MESSAGES.scales["small"].recipe, steps=5000, eval_every=1000),
        ),
    },
)

GATED = "NFN_HNP gated"
GATES_VARIANTS = {
    "as it is": Variant(GATED),
    "sigmoid gates": Variant(GATED, {"gating": Gating("sigmoid")}),
    "ReLU in place of gates": Variant(GATED, {"gating": Gating("relu", gate=False)}),
    "no norm of the channels": Variant(GATED, {"gating": Gating(norm=None)}),
    "set norm of the channels": Variant(GATED, {"gating": Gating(norm="set")}),
    "no norm of the pooled": Variant(GATED, {"gating": Gating(pool_norm=False)}),
    "mean, maximum and deviation pooled": Variant(GATED, {"gating": Gating(statistics=("mean", "max", "std"))}),
    "Fourier features of scale 3": Variant(GATED, {"fourier": (32, 3.0)}),
    "Fourier features of scale 3 of raw weights": Variant(GATED, {"fourier": (32, 3.0), "raw_fourier": True}),
    "no Fourier features": Variant(GATED, {"fourier": None}),
    "augmentation": Variant(GATED, {"augmentation": (0.2, 0.12, 0.1)}),
    "dropout 0.5 in the head": Variant(GATED, {"head_dropout": 0.5}),
    "learning rate 0.002": Variant(GATED, recipe={"learning_rate": 2e-3}),
    "weight decay 0.03": Variant(GATED, recipe={"weight_decay": 0.03}),
}

GATES_STUDY = replace(
    SIREN_SIGNS,
    title="What gated NF-layers owe to each of their parts: one change at a time",
    methods=tuple(GATES_VARIANTS),
    makers={"MNIST": SIREN_SIGNS.makers["MNIST"]},
    variants=GATES_VARIANTS,
)

FASTER = {"learning_rate": 3e-3}
WIDTHS = {"messages": (32, 32)}
DILATE_VARIANTS = {
    "NFN_HNP": Variant("NFN_HNP", recipe=FASTER),
    "NFN_HNP, learning rate 0.001": Variant("NFN_HNP"),
    "NFN_HNP gated": Variant("NFN_HNP gated", recipe=FASTER),
    "Messages": Variant("Messages", WIDTHS, FASTER),
    "Messages, learning rate 0.001": Variant("Messages", WIDTHS),
    "Messages, learning rate 0.01": Variant("Messages", WIDTHS, {"learning_rate": 1e-2}),
    "Messages, 8 points": Variant("Messages", {"messages": (8, 32)}, FASTER),
    "Descent": Variant("Descent", recipe=FASTER),
    "Descent, 11 x 11 pixels": Variant("Descent", {"descent": (11, 16, 5)}, FASTER),
    "Descent, 1 step": Variant("Descent", {"descent": (28, 16, 1)}, FASTER),
}
"""Messages have 32 points and 32 channels, as many channels as the NF-layers."""

DILATE_STUDY = replace(
    DILATE,
    title="What editing owes to messages, gates, the learning rate and what is seen: one change at a time",
    tables=(),
    methods=tuple(DILATE_VARIANTS),
    variants=DILATE_VARIANTS,
)
