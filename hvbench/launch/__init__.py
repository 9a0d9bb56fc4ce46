"""The launcher's side: how ranks find each other, and the agents that start, watch and restart workers.

`context` tells who launched this process, `bootstrap` brings the ranks to rank 0's address, `channel` carries the few
control messages, `agent` runs on every rank and owns one worker, `coordinator` runs on rank 0 and owns the plan,
`above` notices there that the launcher is gone. No framework is imported here.
"""
