import numpy as np
import pytest

from common.policy.heads import softmax
from common.policy.masks import ActionMasks, allowed, flat_mask
from common.spec import Categorical, joint_spec

JOINT = joint_spec(
    [("a_0", "a", 5, (Categorical(3),)), ("b_0", "b", 2, (Categorical(2),)), ("a_1", "a", 4, (Categorical(2),))],
    masked={"a_0", "a_1"},
)


def test_forbidden_logits_are_never_chosen_and_the_others_stay() -> None:
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(50, JOINT.obs_dim)).astype(np.float32)
    mask = rng.random((50, 5)) < 0.6
    obs[:, [2, 3, 4, 9, 10]] = mask
    logits = rng.normal(0, 30, (50, JOINT.action_dim)).astype(np.float32)
    lowered = ActionMasks(JOINT.mask_columns).lower(logits.copy(), obs)
    is_allowed = np.ones_like(logits, bool)
    is_allowed[:, [0, 1, 2, 5, 6]] = mask
    np.testing.assert_array_equal(lowered[is_allowed], logits[is_allowed])
    probabilities = np.empty_like(lowered[:, :3])
    softmax(lowered[:, :3], probabilities)
    some = is_allowed[:, :3].any(axis=1)
    assert (probabilities[some][~is_allowed[some, :3]] == 0.0).all()
    np.testing.assert_array_equal(allowed(lowered[:, :3])[some], is_allowed[some, :3])
    assert allowed(lowered[:, :3])[~some].all()


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (None, [1, 1, 1, 1, 1]),
        ([1, 0, 0, 1, 0], [1, 0, 0, 1, 0]),
        (np.array([True, False, False, False, True]), [1, 0, 0, 0, 1]),
        (np.array([[0, 1, 0, 1, 1]], np.int8), [0, 1, 0, 1, 1]),
        (([0, 0, 1], [1, 1]), [0, 0, 1, 1, 1]),
        ([0, 0, 0, 0, 1], [1, 1, 1, 0, 1]),
        ([0] * 5, [1] * 5),
    ],
)
def test_a_mask_is_one_number_a_choice(mask: object, expected: list[int]) -> None:
    np.testing.assert_array_equal(flat_mask(mask, (Categorical(3), Categorical(2))), expected)


@pytest.mark.parametrize("mask", [[1, 0], [2, 1, 1, 1, 1], [np.nan] * 5, "none", {}, [[1, 0], [1, 0, "x"]]])
def test_what_is_no_mask_is_refused(mask: object) -> None:
    with pytest.raises(ValueError, match="5 numbers, 1"):
        flat_mask(mask, (Categorical(3), Categorical(2)))
