"""Figures of the paper (Zhou et al., NeurIPS 2023), to compare with ours: tables 2 to 6 and 16 to 19.

For each experiment, dataset and method its metrics, each a value and its uncertainty (0 where the paper gives none);
accuracies in per cent.
"""

__all__ = ["PAPER", "ROUNDING"]

ROUNDING = {"test_accuracy": 0.1, "train_accuracy": 0.1, "test_tau": 0.001, "test_r2": 0.001, "test_error": 0.001}
"""Last place in which the paper gives each metric, coarsest table; ``± 0.000`` there is an uncertainty below half of it."""

Figures = dict[str, tuple[float, float]]


def _accuracies(train: float, train_error: float, test: float, test_error: float) -> Figures:
    return {"train_accuracy": (train, train_error), "test_accuracy": (test, test_error)}


PAPER: dict[str, dict[str, dict[str, Figures]]] = {
    "table2": {
        "CIFAR-10-GS": {
            "NFN_HNP": {"test_tau": (0.934, 0.001)},
            "NFN_NP": {"test_tau": (0.922, 0.001)},
            "STATNN": {"test_tau": (0.915, 0.002)},
        },
        "SVHN-GS": {
            "NFN_HNP": {"test_tau": (0.931, 0.005)},
            "NFN_NP": {"test_tau": (0.856, 0.001)},
            "STATNN": {"test_tau": (0.843, 0.000)},
        },
    },
    "table3": {
        "MNIST": {
            "NFN_HNP": _accuracies(94.9, 0.579, 92.5, 0.071),
            "NFN_NP": _accuracies(95.0, 0.115, 92.9, 0.218),
            "NFN_NP without IO-encoding": {"test_accuracy": (92.9, 0.077)},
            "DWSNets": {"test_accuracy": (74.4, 0.143)},
            "MLP": _accuracies(42.4, 2.44, 14.5, 0.035),
            "MLP_Aug": _accuracies(20.5, 0.401, 21.0, 0.172),
            "MLP-4000": _accuracies(72.6, 1.39, 15.5, 0.090),
            "MLP-4000_Aug": _accuracies(19.4, 1.39, 21.1, 0.010),
            "MLP-8000": _accuracies(77.8, 1.74, 15.8, 0.014),
            "MLP-8000_Aug": _accuracies(20.3, 3.30, 21.3, 0.075),
            "ResNet-18": {"test_accuracy": (99.21, 0.28)},
        },
        "FashionMNIST": {
            "NFN_HNP": _accuracies(82.3, 2.78, 72.7, 1.53),
            "NFN_NP": _accuracies(81.8, 0.868, 75.6, 1.07),
            "NFN_NP without IO-encoding": {"test_accuracy": (73.4, 0.701)},
            "DWSNets": {"test_accuracy": (64.8, 0.685)},
            "MLP": _accuracies(44.5, 2.17, 12.5, 0.111),
            "MLP_Aug": _accuracies(14.9, 1.45, 15.9, 0.181),
            "ResNet-18": {"test_accuracy": (95.48, 0.13)},
        },
        "CIFAR-10": {
            "NFN_HNP": _accuracies(75.5, 0.810, 44.1, 0.471),
            "NFN_NP": _accuracies(66.0, 0.694, 46.6, 0.072),
            "NFN_NP without IO-encoding": {"test_accuracy": (46.5, 0.160)},
            "DWSNets": {"test_accuracy": (41.5, 0.431)},
            "MLP": _accuracies(23.7, 2.39, 16.9, 0.250),
            "MLP_Aug": _accuracies(19.1, 1.75, 18.9, 0.432),
            "MLP-4000": _accuracies(30.4, 0.521, 17.1, 0.120),
            "MLP-4000_Aug": _accuracies(20.5, 0.333, 19.3, 0.325),
            "MLP-8000": _accuracies(35.9, 0.868, 17.3, 0.280),
            "MLP-8000_Aug": _accuracies(18.1, 0.347, 19.6, 0.060),
            "ResNet-18": {"test_accuracy": (93.95, 0.08)},
        },
    },
    "table4": {
        "ShapeNet-10": {
            "NFN_HNP": _accuracies(100.0, 0.0, 86.9, 0.860),
            "NFN_NP": _accuracies(100.0, 0.0, 88.7, 0.461),
            "MLP": _accuracies(100.0, 0.0, 25.4, 0.121),
            "MLP_Aug": _accuracies(34.0, 0.0, 33.8, 0.126),
            "inr2vec": _accuracies(99.0, 0.0, 39.1, 0.385),
            "PointNet": {"test_accuracy": (94.3, 0.0)},
        },
        "ScanNet-10": {
            "NFN_HNP": _accuracies(100.0, 0.0, 64.1, 0.572),
            "NFN_NP": _accuracies(100.0, 0.0, 65.9, 1.10),
            "MLP": _accuracies(100.0, 0.0, 32.9, 0.351),
            "MLP_Aug": _accuracies(42.7, 0.012, 45.5, 0.126),
            "inr2vec": _accuracies(93.8, 0.090, 38.2, 0.409),
            "PointNet": {"test_accuracy": (72.7, 0.0)},
        },
    },
    "table5": {
        "CIFAR-10": {
            "Dense": {"test_accuracy": (63.1, 0.06)},
            "IMP": {"test_accuracy": (44.0, 0.06)},
            "Random": {"test_accuracy": (21.1, 0.26)},
            "NFN_NP": {"test_accuracy": (41.4, 0.08)},
            "NFN_PT": {"test_accuracy": (42.6, 0.07)},
        },
        "MNIST": {
            "Dense": {"test_accuracy": (97.8, 0.0)},
            "IMP": {"test_accuracy": (96.2, 0.04)},
            "Random": {"test_accuracy": (89.6, 0.36)},
            "NFN_NP": {"test_accuracy": (94.8, 0.01)},
            "NFN_PT": {"test_accuracy": (95.0, 0.01)},
            "NFN_PT without layer norm": {"test_accuracy": (95.0, 0.0)},  # section E.4, which gives no error
        },
    },
    "table6-dilate": {
        "MNIST": {
            "NFN_HNP": {"test_error": (0.070, 0.0)},
            "NFN_NP": {"test_error": (0.068, 0.0)},
            "NFN_NP without IO-encoding": {"test_error": (0.070, 0.001)},
            "NFN_PT": {"test_error": (0.197, 0.0)},
            "MLP": {"test_error": (0.306, 0.0)},
            "MLP_Aug": {"test_error": (0.307, 0.0)},
        },
    },
    "table6-contrast": {
        "CIFAR-10": {
            "NFN_HNP": {"test_error": (0.021, 0.0)},
            "NFN_NP": {"test_error": (0.020, 0.0)},
            "NFN_NP without IO-encoding": {"test_error": (0.020, 0.0)},
            "NFN_PT": {"test_error": (0.029, 0.0)},
            "MLP": {"test_error": (0.031, 0.0)},
            "MLP_Aug": {"test_error": (0.029, 0.0)},
        },
    },
    "table19": {
        "3-Layer": {
            "NFN_HNP": {"test_tau": (0.876, 0.003), "test_r2": (0.957, 0.003)},
            "NFN_NP": {"test_tau": (0.859, 0.002), "test_r2": (0.9424, 0.003)},
            "STATNN": {"test_tau": (0.854, 0.002), "test_r2": (0.937, 0.002)},
        },
        "5-Layer": {
            "NFN_HNP": {"test_tau": (0.871, 0.001), "test_r2": (0.956, 0.002)},
            "NFN_NP": {"test_tau": (0.855, 0.001), "test_r2": (0.947, 0.001)},
            "STATNN": {"test_tau": (0.860, 0.001), "test_r2": (0.950, 0.001)},
        },
    },
}
