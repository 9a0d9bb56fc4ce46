"""Parameter servers, for both twins: ranks push gradients, servers update, ranks pull parameters. Numpy and TCP, on any number of hosts.

Servers are processes beside the ranks' workers and import no framework. In the order in which a training needs them: `meeting` (how ranks
and servers connect), `frames` (what goes over a connection), `tensors` (who owns what), `client` (a rank's side), `server` (what a
server makes of requests; no I/O) and `service` (its process).
"""
