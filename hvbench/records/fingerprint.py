"""Which machine and which software a launch ran on: the fields that must agree before its speed is compared.

Pure. A fact that one side does not state was not known then, and is not compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from hvbench.records.record import Record

HARDWARE = (
    "cpu_model", "cpu_cores", "usable_cores", "cgroup_cpu_quota", "cpu_governor", "memory_bytes",
    "cgroup_memory_limit_bytes", "native_bfloat16", "native_float16", "kernel", "devices",
)  # fmt: skip
SOFTWARE = ("hvbench_version", "python", "packages", "horovod_settings", "omp_num_threads", "controller")
# These follow from the point, or belong to it: they are compared point by point, but name no machine.
OF_A_POINT = ("threads", "data_digest", "memory_limit_bytes")

# What an axis changes by itself when points are joined over it.
FOLLOWS_FROM = {"device": ("devices", "threads"), "world_size": ("threads", "controller"), "data": ("data_digest",)}


def describe_fingerprint(record: Record) -> dict[str, Any]:
    """Fields of HARDWARE, SOFTWARE and OF_A_POINT of one record; None where it does not say."""
    facts = {name: record.environment.get(name) for name in (*HARDWARE, *SOFTWARE, *OF_A_POINT)}
    facts["devices"] = sorted({rank.device for rank in record.ranks}) or None
    facts["threads"] = sorted({rank.threads for rank in record.ranks}) or None
    return facts


def find_differences(
    before: Mapping[str, Any], now: Mapping[str, Any], *, ignore: Collection[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Field -> (before, now) for every fact that both state and that differs; tables such as `packages` key by key."""
    differences: dict[str, tuple[Any, Any]] = {}
    for name in before:
        pair = before[name], now.get(name)
        if name in ignore or None in pair or pair[0] == pair[1]:
            continue
        if all(isinstance(value, Mapping) for value in pair):
            for key in sorted({*pair[0], *pair[1]}):
                if pair[0].get(key) != pair[1].get(key):
                    differences[f"{name}.{key}"] = (pair[0].get(key), pair[1].get(key))
        else:
            differences[name] = pair
    return differences


def fingerprint_id(record: Record) -> str:
    """12 hex digits that name the machine and its software: hardware, versions, settings; not the point."""
    facts = describe_fingerprint(record)
    named = {name: facts[name] for name in (*HARDWARE, *SOFTWARE)}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:12]
