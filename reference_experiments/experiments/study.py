"""A study of SignedMessages: one change at a time, on SIRENs of MNIST, at a quarter of the usual number of steps."""

from dataclasses import replace

from reference_experiments.experiments.base import Variant
from reference_experiments.experiments.classification import SIREN_MESSAGES

__all__ = ["SIREN_STUDY"]

PLAIN = "SignedMessages without activations"
VARIANTS = {
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
    methods=tuple(VARIANTS),
    makers={"MNIST": SIREN_MESSAGES.makers["MNIST"]},
    overrides={},
    variants=VARIANTS,
    scales={
        **SIREN_MESSAGES.scales,
        "small": replace(
            SIREN_MESSAGES.scales["small"],
            recipe=replace(SIREN_MESSAGES.scales["small"].recipe, steps=5000, eval_every=1000),
        ),
    },
)
