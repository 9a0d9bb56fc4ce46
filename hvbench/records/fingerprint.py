"""The fingerprint of a launch: its machine and software, which must agree before two launches' speeds are compared.

Pure. A fact that one of two records lacks, because hvbench did not record it then, is not compared.
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
# Facts that depend on the point: compared between launches of the same point, but no part of `fingerprint_id`.
OF_A_POINT = ("threads", "data_digest", "memory_limit_bytes")

# Field of a point -> facts that differ because that field does, where points are compared over it.
FOLLOWS_FROM = {"device": ("devices", "threads"), "world_size": ("threads", "controller"), "data": ("data_digest",)}


def describe_fingerprint(record: Record) -> dict[str, Any]:
    """Fact -> value of one record, for the facts of HARDWARE, SOFTWARE and OF_A_POINT; None where it is not recorded."""
    facts = {name: record.environment.get(name) for name in (*HARDWARE, *SOFTWARE, *OF_A_POINT)}
    facts["devices"] = sorted({rank.device for rank in record.ranks}) or None
    facts["threads"] = sorted({rank.threads for rank in record.ranks}) or None
    return facts


def find_differences(
    before: Mapping[str, Any], now: Mapping[str, Any], *, ignore: Collection[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Fact -> (before, now) for every fact that both have and that differs; mappings such as `packages` key by key."""
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
    """Digest, 12 hexadecimal digits, of a launch's machine and software (HARDWARE, SOFTWARE); independent of the point."""
    facts = describe_fingerprint(record)
    named = {name: facts[name] for name in (*HARDWARE, *SOFTWARE)}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:12]
