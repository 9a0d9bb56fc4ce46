"""What both twins share, written once, numpy only: initial weights, batches, schedule, FLOPs, precision, loss scale."""
