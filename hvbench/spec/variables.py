"""Horovod's environment variables. Pure."""

from __future__ import annotations

import re

# Those by which a launcher tells a process its place: no settings, and no part of an environment that was measured in.
PLACE = re.compile(r"HOROVOD_(RANK|SIZE|LOCAL_\w+|CROSS_\w+|HOSTNAME|GLOO_RENDEZVOUS_\w+)")
