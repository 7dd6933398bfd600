"""What a sample of rows says about all rows: intervals, tests of a difference, agreement; pure functions on arrays.

`intervals` and `resampling` hold the methods, `tables` and `reliability` the statistics that need resampling, `paired`
compares two cells on the same rows, `agreement` compares many. Named here is what a metric of another package uses.
"""

from promptlab.statistics.intervals import Interval, mean_interval, wilson
from promptlab.statistics.resampling import bootstrap

__all__ = ["Interval", "bootstrap", "mean_interval", "wilson"]
