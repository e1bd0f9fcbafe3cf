"""The initial parameters of networks."""

import numpy as np
import pytest

from learner_node.update.draws import initial_weights

SHAPES = [(300, 100), (100, 200), (200, 5)]


def layers(initialisation, first_biases=1):
    """Returns the weight and the biases of each layer, flat."""
    flat = initial_weights(SHAPES, (1, 0, 0), first_biases, initialisation=initialisation)
    found, start = [], 0
    for depth, (inputs, outputs) in enumerate(SHAPES):
        sets = first_biases if depth == 0 else 1
        middle, end = start + inputs * outputs, start + (inputs + sets) * outputs
        found.append((flat[start:middle], flat[middle:end]))
        start = end
    assert start == len(flat)
    return found


@pytest.mark.parametrize(("layer", "bound"), [(0, 0.122474), (1, 0.141421), (2, 0.171077)])
@pytest.mark.parametrize("first_biases", [1, 3])
def test_xavier_weights_are_uniform_and_biases_zero(layer, bound, first_biases):
    """The bounds are sqrt(6 / 400), sqrt(6 / 300) and sqrt(6 / 205)."""
    weight, biases = layers("xavier", first_biases)[layer]
    assert abs(weight).max() == pytest.approx(bound, rel=0.01)
    assert abs(weight).max() <= bound * 1.00001
    assert weight.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
    assert not biases.any()


@pytest.mark.parametrize(("layer", "bound"), [(0, 0.057735), (1, 0.1), (2, 0.0707107)])
def test_uniform_weights_and_biases_are_within_one_over_the_root_of_the_inputs(layer, bound):
    for numbers in layers("uniform")[layer]:
        assert 0.6 * bound < abs(numbers).max() <= bound * 1.00001
