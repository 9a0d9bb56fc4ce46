"""A run in the forms that other programs read: those that collect metrics, those that follow benchmarks over commits, MLPerf's log."""

NAMES = (
    "openmetrics",
    "bencher",
    "github-action-benchmark",
    "mlperf",
)  # of `catalogue.FORMATS`: the command line loads no pandas
