"""The exceptions of nfn-core, one family, so that ``except NFNError`` catches them all; and its warnings.

Every message states what was expected, what was given, which argument or tensor it concerns, and how to correct it.
"""

__all__ = [
    "FeatureError",
    "LabelError",
    "LabelWarning",
    "MissingDependencyError",
    "NFNError",
    "ParameterError",
    "PermutationError",
    "ResolutionWarning",
    "SizeWarning",
    "SpecError",
    "StackWarning",
]


class NFNError(Exception):
    """Base of every exception that nfn-core raises on purpose."""


class SpecError(NFNError, ValueError):
    """A weight space, group or layer was described in a way that cannot be."""


class FeatureError(NFNError, ValueError):
    """Features do not fit the weight space: names, shapes, channels, dtypes, array library or device."""


class PermutationError(NFNError, ValueError):
    """A neuron permutation has the wrong length, repeats an image, or moves a set its group leaves alone."""


class LabelError(NFNError, ValueError):
    """The neuron sets of a network cannot be derived, or a labeling of its tensors is no symmetry of the network."""


class ParameterError(NFNError, ValueError):
    """Parameters, or a parameter file, do not belong to the layer they were given to."""


class MissingDependencyError(NFNError, ImportError):
    """An optional package that this call needs is not installed."""


class ResolutionWarning(UserWarning):
    """Fourier features whose frequencies do not suit the entries: nearly constant, or nearly random."""


class LabelWarning(UserWarning):
    """What `weight_space` left out of a network."""


class SizeWarning(UserWarning):
    """An NF-layer under this group would have more than 10⁹ parameters."""


class StackWarning(UserWarning):
    """What `stack` did beyond stacking: it left out a prefix of all names, or filled in missing tensors."""
