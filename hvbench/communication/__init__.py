"""All-reduces by themselves: how long one takes by message size and path, and a model of its cost that predicts others.

`record` is what a case leaves, `plan` lists the cases, `calls` times one in a worker, `run` launches and stores them,
`summary` and `table` and `plot` show them, `cost` fits the model, `predict` extrapolates with it.
"""
