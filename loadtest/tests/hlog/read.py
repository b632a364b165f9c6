"""Reads an interval log with the library of another language, and prints one JSON object: what all its intervals hold together.

Usage: read.py FILE
"""

import json
import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

whole = HdrHistogram(1, 60_000_000_000, 3)
reader = HistogramLogReader(sys.argv[1], HdrHistogram(1, 60_000_000_000, 3))
seconds = []
while True:
    interval = reader.get_next_interval_histogram()
    if interval is None:
        break
    whole.add(interval)
    seconds.append([interval.get_start_time_stamp(), interval.get_end_time_stamp()])
count = whole.get_total_count()


def around(percentile):
    """The answers that stand next to a percentile, in microseconds: which of them it is, libraries round in ways of their own."""
    one = 100 / max(count, 1)
    ends = (max(percentile - one, 0), min(percentile + one, 100))
    return [whole.get_value_at_percentile(end) / 1000 for end in ends]


print(json.dumps({
    "count": count,
    "p50_us": around(50),
    "p99_us": around(99),
    "max_us": [whole.get_max_value() / 1000] * 2,
    "seconds": seconds,
}))
