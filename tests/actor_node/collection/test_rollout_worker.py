import pytest

from actor_node.collection.rollout_worker import check_chunk_size, first_episode_steps
from common.errors import ConfigError
from tests.common.examples import BOXES, make_run


def run(**replay):
    return make_run(BOXES, replay={"batch": 64, "samples_per_insert": 2.0, **replay})


@pytest.mark.parametrize(
    ("replay", "rows"),
    [
        ({}, 1_000),
        ({"error_buffer": 100.0}, 50),
        ({"error_buffer": 50.0}, 18),
        ({"error_buffer": 100.0, "limit": "off"}, 5_000),
    ],
)
def test_chunks_that_fit_are_accepted(replay, rows):
    check_chunk_size(run(**replay), rows)


@pytest.mark.parametrize(
    ("replay", "rows"),
    [
        ({"error_buffer": 100.0}, 51),
        ({"error_buffer": 50.0}, 19),
        ({"error_buffer": 100.0, "limit": "insert_only"}, 51),
    ],
)
def test_chunks_that_would_wait_for_ever_are_a_usage_error(replay, rows):
    """Twice the half width holds a batch and a chunk, and the half width alone the chunk that crosses min_size."""
    with pytest.raises(ConfigError, match=rf"chunks of {rows} transitions never fit .*; lower --copies"):
        check_chunk_size(run(**replay), rows)


def test_chunks_larger_than_a_frame_are_a_usage_error():
    with pytest.raises(ConfigError, match=r"a chunk of 1,000,000 transitions is \d+ MiB, and .* accepts 64 MiB; lower"):
        check_chunk_size(run(), 1_000_000)


def test_first_episodes_of_all_workers_end_at_different_times():
    lengths = [first_episode_steps(1_000, worker, 2, 4) for worker in range(2)]
    assert lengths == [(125, 375, 625, 875), (250, 500, 750, 0)]
    assert first_episode_steps(0, 0, 2, 4) == ()
