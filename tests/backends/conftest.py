"""What tests of both front ends share."""

import pytest

from nfn_core import LabelError


@pytest.fixture
def check_activations():
    """Check the activation function and factor of both hidden layers, and the omega that follows."""

    def check(space, expected):
        function, factor = expected
        assert space.activations == (("h1", function, factor), ("h2", function, factor))
        if function == "sin" and factor:
            assert space.omega == factor
        else:
            with pytest.raises(LabelError, match="expected a sine network"):
                _ = space.omega

    return check
