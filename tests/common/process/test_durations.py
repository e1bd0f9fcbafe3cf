import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.process.durations import Duration, format_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("300", 300.0),
        ("0", 0.0),
        ("2.5", 2.5),
        ("1e3", 1000.0),
        ("90s", 90.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1d", 86_400.0),
        ("0.5h", 1800.0),
        ("1m1m", 120.0),
        (7, 7.0),
        (7.5, 7.5),
    ],
)
def test_lengths_of_time(text, seconds):
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "m", "5x", "5 m", "five", "1h30", "-5m", "1h,30m", "m5"])
def test_text_that_is_not_a_duration_is_refused_with_the_way_out(text):
    with pytest.raises(click.BadParameter, match=r"is not a duration\. Write 300, 90s, 5m or 1h30m"):
        Duration().convert(text, None, None)


@given(st.integers(0, 100), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_parts_add_up(days, hours, minutes, seconds):
    text = f"{days}d{hours}h{minutes}m{seconds}s"
    assert Duration().convert(text, None, None) == ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def test_a_clock_shows_hours_only_where_there_are_some():
    assert (format_duration(5), format_duration(65), format_duration(3_661)) == ("0:05", "1:05", "1:01:01")
