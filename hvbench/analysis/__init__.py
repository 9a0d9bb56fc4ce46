"""Analysis: pure functions of stored records, from samples to frames, statistics, tables, plots and the report.

Import the modules, not this package: it stays empty so that the command line starts without pandas or matplotlib.
"""
