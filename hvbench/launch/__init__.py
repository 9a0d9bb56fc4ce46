"""The launcher's side: how ranks are started and connected, and the agents that start, watch and end workers.

In the order of a launch: `context` (who launched this process), `session` (a launch from begin to end), `bootstrap` (how
the other ranks learn rank 0's address), `channel` and `messages` (between rank 0 and the agents), `agent` (on every
rank) with `process`, `served` and `mpirun` (its worker, with parameter servers beside it, by mpirun), `coordinator` (on rank 0: tasks in, ends out) with `workers`,
`generation` and `starting` (one set of workers). No framework is imported here.
"""
