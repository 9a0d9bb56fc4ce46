"""All-reduces by themselves: how long one takes by message size and path, and a cost model that predicts others.

In the order of the flow: `plan` lists the cases, `run` launches them, `calls` times one in a worker, `record` is what is
stored of it; `summary`, `table` and `plot` show the times; `cost` fits the model, `predict` extrapolates with it to more
ranks and other links, and `cost_report` shows both.
"""
