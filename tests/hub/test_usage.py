"""Counters of nodes: by day and month, and what is not written yet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restunnel_hub.sizes import format_size, parse_size
from restunnel_hub.usage import Traffic, Usage, today

DAY = 86400.0
NOVEMBER_29 = 1_795_910_400.0  # 2026-11-29 00:00 UTC


def test_days_are_those_of_utc():
    assert today(NOVEMBER_29) == "2026-11-29"
    assert today(NOVEMBER_29 - 1) == "2026-11-28"


def test_bytes_count_for_their_day_and_month():
    usage = Usage()
    usage.count(10, 1, NOVEMBER_29)
    usage.count(20, 2, NOVEMBER_29 + DAY)
    assert (usage.day, usage.day_bytes, usage.month_bytes) == ("2026-11-30", 22, 33)
    usage.count(40, 4, NOVEMBER_29 + 2 * DAY)
    assert (usage.day, usage.day_bytes, usage.month_bytes) == ("2026-12-01", 44, 44)
    assert (usage.total.received, usage.total.sent) == (70, 7)


def test_a_limit_is_reached_and_is_open_again_on_another_day():
    usage = Usage(day="2026-11-28", day_bytes=100, month_bytes=1000)
    assert not usage.exceeds(None, None)
    usage = Usage()
    usage.count(60, 40)
    assert usage.exceeds(100, None)
    assert usage.exceeds(None, 100)
    assert not usage.exceeds(101, 101)
    yesterday = Usage(day="2001-01-01", day_bytes=100, month_bytes=100)
    assert not yesterday.exceeds(100, 100)


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 3))))
def test_nothing_is_written_twice_or_lost(counts):
    usage, written = Usage(), Traffic()
    for received, sent, streams in counts:
        usage.streams += streams
        usage.count(received, sent)
        if received % 2:
            for traffic in usage.take_pending().values():
                written.add(traffic)
    for traffic in usage.take_pending().values():
        written.add(traffic)
    assert written == usage.total
    assert written == Traffic(*(sum(column) for column in zip(*counts, strict=True))) or not counts
    assert usage.take_pending() == {}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("500MB", 500_000_000),
        ("2 GiB", 2 << 30),
        ("1.5k", 1500),
        ("7b", 7),
        ("1TiB", 1 << 40),
    ],
)
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1", "1e9", "5 GBit", "1.5.5", "i", "9" * 40])
def test_other_sizes_are_refused(text):
    with pytest.raises(ValueError, match="not an amount of bytes"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e9, "2.0 GB"), (5e15, "5000.0 TB")],
)
def test_sizes_are_written(size, text):
    assert format_size(size) == text
