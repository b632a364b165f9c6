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
print(json.dumps({
    "count": whole.get_total_count(),
    "p50_us": whole.get_value_at_percentile(50) / 1000,
    "p99_us": whole.get_value_at_percentile(99) / 1000,
    "max_us": whole.get_max_value() / 1000,
    "seconds": seconds,
}))
