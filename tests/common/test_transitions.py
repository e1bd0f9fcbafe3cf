import numpy as np
from hypothesis import given, settings

from common.transitions import field_columns, transition_dtype
from tests.common.examples import MIXED
from tests.common.strategies import teams


@settings(max_examples=40)
@given(teams())
def test_a_record_is_packed_little_endian_words(joint):
    dtype = transition_dtype(joint)
    agents = len(joint.agents)
    assert dtype.itemsize == 4 * (2 * joint.obs_dim + joint.action_dim + 3 * agents + 1)
    for field, *_ in dtype.fields.values():
        assert field.base.itemsize == 4
        assert field.base.newbyteorder("<") == field.base


def test_the_critics_input_is_one_slice_of_a_row():
    columns = field_columns(transition_dtype(MIXED))
    assert (columns["obs"].start, columns["obs"].stop) == (0, columns["action"].start)
    assert columns["action"].stop == columns["next_obs"].start


@settings(max_examples=40)
@given(teams())
def test_columns_say_the_position_of_a_field_in_a_row(joint):
    dtype = transition_dtype(joint)
    records = np.zeros(2, dtype)
    rows = records.view("<f4").reshape(2, -1)
    for i, (name, columns) in enumerate(field_columns(dtype).items()):
        words = records[name].reshape(2, -1)
        assert columns.stop - columns.start == words.shape[1]
        if name != "policy_version":
            rows[:, columns] = i + 1
            assert (words == i + 1).all()
    assert dict(list(field_columns(dtype).items())[-1:]) == {"policy_version": slice(rows.shape[1] - 1, rows.shape[1])}
