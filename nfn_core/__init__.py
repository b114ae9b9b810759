"""Permutation-equivariant neural functional networks, written once against the Python array API.

Weight spaces, neuron-permutation groups and their action, equivariant and invariant NF-layers, encodings and networks
of Zhou et al., *Permutation Equivariant Neural Functionals* (NeurIPS 2023). Descriptions made here are turned into
modules by `nfn_torch` and into pure functions by `nfn_jax`; with NumPy they run as they are.
"""

from nfn_core.arrays import Array, Features
from nfn_core.descriptions import from_json, to_json
from nfn_core.errors import (
    FeatureError,
    LabelError,
    LabelWarning,
    MissingDependencyError,
    NFNError,
    ParameterError,
    PermutationError,
    ResolutionWarning,
    SizeWarning,
    SpecError,
    StackWarning,
)
from nfn_core.features import check_features
from nfn_core.files import fingerprint, load_parameters, save_parameters
from nfn_core.groups import Group
from nfn_core.layers.base import Execution, Layer, Noise
from nfn_core.layers.canonical import CanonicalFactors, CanonicalScales, InCanonicalScales
from nfn_core.layers.composite import Composite
from nfn_core.layers.elementwise import ACTIVATIONS, Activation, Dropout, Gate, LayerNorm, Normalize, Scale
from nfn_core.layers.encodings import GaussianFourierFeatures, LearnedEncoding, SinusoidalEncoding
from nfn_core.layers.graded import ByParity, GradedFourierFeatures, GradedGate, GradedProduct, parity_space
from nfn_core.layers.low_rank import LowRankNFLayer
from nfn_core.layers.message_networks import MessageBlock, MessageInput, message_network
from nfn_core.layers.messages import MessageReadout, Messages, TensorUpdate
from nfn_core.layers.networks import MLPHead, Residual, Sequential, equivariant_network, invariant_network
from nfn_core.layers.neurons import MessageState, NeuronPool, neuron_group
from nfn_core.layers.nf import InvariantPool, NFLayer, PointwiseLayer
from nfn_core.layers.norms import BatchNorm, InstanceNorm, SetNorm
from nfn_core.layers.parameters import ParameterSpec, check_parameters, initialize
from nfn_core.layers.phases import BiasPhases, NeuronPhases
from nfn_core.layers.signed import SignedMessages
from nfn_core.models.model_space import ModelSpace
from nfn_core.models.verification import Verification
from nfn_core.models.views import View
from nfn_core.permutations import Permutation, images_of_assignment, images_of_matrix
from nfn_core.signal import Signal, signal_report
from nfn_core.spaces import TensorSpec, WeightSpace

__version__ = "0.1.0"

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Array",
    "BatchNorm",
    "BiasPhases",
    "ByParity",
    "CanonicalFactors",
    "CanonicalScales",
    "Composite",
    "Dropout",
    "Execution",
    "FeatureError",
    "Features",
    "Gate",
    "GaussianFourierFeatures",
    "GradedFourierFeatures",
    "GradedGate",
    "GradedProduct",
    "Group",
    "InCanonicalScales",
    "InstanceNorm",
    "InvariantPool",
    "LabelError",
    "LabelWarning",
    "Layer",
    "LayerNorm",
    "LearnedEncoding",
    "LowRankNFLayer",
    "MLPHead",
    "MessageBlock",
    "MessageInput",
    "MessageReadout",
    "MessageState",
    "Messages",
    "MissingDependencyError",
    "ModelSpace",
    "NFLayer",
    "NFNError",
    "NeuronPhases",
    "NeuronPool",
    "Noise",
    "Normalize",
    "ParameterError",
    "ParameterSpec",
    "Permutation",
    "PermutationError",
    "PointwiseLayer",
    "Residual",
    "ResolutionWarning",
    "Scale",
    "Sequential",
    "SetNorm",
    "Signal",
    "SignedMessages",
    "SinusoidalEncoding",
    "SizeWarning",
    "SpecError",
    "StackWarning",
    "TensorSpec",
    "TensorUpdate",
    "Verification",
    "View",
    "WeightSpace",
    "check_features",
    "check_parameters",
    "equivariant_network",
    "fingerprint",
    "from_json",
    "images_of_assignment",
    "images_of_matrix",
    "initialize",
    "invariant_network",
    "load_parameters",
    "message_network",
    "neuron_group",
    "parity_space",
    "save_parameters",
    "signal_report",
    "to_json",
]
