"""Horovod's environment variables that tell a process its place in a launch: no settings, and nothing that was measured in. Pure."""

import re

PLACE = re.compile(r"HOROVOD_(RANK|SIZE|LOCAL_(RANK|SIZE)|CROSS_(RANK|SIZE)|HOSTNAME|GLOO_RENDEZVOUS_\w+)")
