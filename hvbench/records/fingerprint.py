"""The fingerprint of a launch: its machine, software and settings, which must agree before two launches' speeds are compared.

Pure. A fact that one of two records does not state, because hvbench did not record it then, is unknown, and not compared;
a fact of the value None is known: there is no limit, or nothing says so. What follows from the point names no machine, and
which hvbench ran, or which revision of a script, is what a comparison is for: it is said, and no obstacle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from hvbench.records.environment import limit_cores
from hvbench.records.record import Record
from hvbench.spec.knob import changed_fields, knobs_of

HARDWARE = (
    "cpu_model", "cpu_cores", "usable_cores", "cgroup_cpu_quota", "cpu_governor", "memory_bytes",
    "cgroup_memory_limit_bytes", "gpu", "kernel",
)  # fmt: skip
SOFTWARE = (
    "python", "libc", "packages", "nvidia_packages", "horovod_settings", "library_settings",
    "native_bfloat16", "native_float16",  # what the libraries may use of the processor
)  # fmt: skip
MACHINE = (*HARDWARE, *SOFTWARE)  # what `fingerprint_id` names
# Facts that depend on the point: compared between launches of the same point.
OF_A_POINT = (
    "devices",
    "threads",
    "controller",
    "data_digest",
    "initial_weights",
    "memory_limit_bytes",
    "framework_versions",
    "gemm",
)
OWN = ("hvbench_version", "hvbench_revision", "hvbench_source_digest")  # said where they differ, never an obstacle
SCRIPT_FACT = "script"  # of people's own training: {"revision", "is_dirty", "digest"}; likewise said, and no obstacle

# Field of a point -> facts that differ because that field does, where points are compared over it.
FOLLOWS_FROM = {
    "framework": ("framework_versions", "devices"),
    "gemm": ("gemm",),
    "device": ("devices", "threads", "framework_versions", "gemm"),
    "precision": ("framework_versions", "gemm"),  # which says whether TF32 was on
    # Other shapes, which another library may multiply faster.
    **dict.fromkeys(
        (
            "model",
            "family",
            "hidden_size",
            "num_layers",
            "num_heads",
            "num_kv_heads",
            "mlp_size",
            "vocab_size",
            "sequence_length",
            "micro_batch_size",
        ),
        ("gemm",),
    ),
    "world_size": ("threads", "controller", "gemm"),
    "controller": ("controller",),
    "strategy": ("controller",),
    "data": ("data_digest",),
    "initial_weights": ("data_digest", "initial_weights"),  # whose tokenizer reads the text
}

# What hvbench sets for every worker; records say which variables it was (`chosen_settings`), those of earlier versions not.
ALWAYS_CHOSEN = ("HOROVOD_CONTROLLER", "HOROVOD_CPU_OPERATIONS")
CHOSEN_BEFORE = (*ALWAYS_CHOSEN, "HOROVOD_GLOO_IFACE")
LOOPBACK = ("HOROVOD_GLOO_IFACE", "lo")  # what hvbench and horovodrun choose on one host
PATHS = ("HOROVOD_TIMELINE", "HOROVOD_AUTOTUNE_LOG")  # that something is written slows a step, not where
MAY_LACK_KEYS = ("framework_versions",)  # a key that is missing was not recorded then


def describe_fingerprint(record: Record) -> dict[str, Any]:
    """Fact -> value of one record, for the facts of MACHINE and OF_A_POINT that it states."""
    stated = {name: record.environment[name] for name in (*MACHINE, *OF_A_POINT) if name in record.environment}
    if isinstance(stated.get("horovod_settings"), Mapping):
        stated["horovod_settings"] = given_settings(record)
    cores, quota = stated.get("usable_cores"), stated.get("cgroup_cpu_quota")
    if type(cores) is int and type(quota) in (int, float) and quota > 0:
        stated["usable_cores"] = limit_cores(cores, quota=quota)  # earlier versions stated the affinity alone
    if record.ranks:
        stated |= {
            "devices": sorted({rank.device for rank in record.ranks}),
            "threads": sorted({rank.threads for rank in record.ranks}),
        }
    return stated


def given_settings(record: Record) -> dict[str, Any]:
    """The HOROVOD_* settings of a launch that neither its point nor hvbench chose."""
    stated = record.environment.get("chosen_settings", CHOSEN_BEFORE)
    chosen = {name for name in stated if isinstance(name, str)} if isinstance(stated, list | tuple) else set()
    fields = changed_fields(record.point, among=lambda knob: knob.variable is not None)
    named = {knobs_of(type(record.point))[name].variable for name in fields}
    return strip_settings(record.environment["horovod_settings"], chosen={*chosen, *named})


def strip_settings(settings: Mapping[str, Any], *, chosen: Collection[str] = ()) -> dict[str, Any]:
    """HOROVOD_* settings as they are compared: without the `chosen` ones and what every launcher sets, paths as `on`."""
    left_out = {*chosen, *ALWAYS_CHOSEN} - set(PATHS)
    kept = {name: "on" if name in PATHS else value for name, value in settings.items() if name not in left_out}
    return {name: value for name, value in kept.items() if (name, value) != LOOPBACK}


def find_differences(
    before: Mapping[str, Any], now: Mapping[str, Any], *, ignore: Collection[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Fact -> (before, now) for every fact that both state and that differs; mappings such as `packages` key by key."""
    differences: dict[str, tuple[Any, Any]] = {}
    for name in before:
        if name in ignore or name not in now or before[name] == now[name]:
            continue
        pair = before[name], now[name]
        if all(isinstance(value, Mapping) for value in pair):
            keys = set(pair[0]) & set(pair[1]) if name in MAY_LACK_KEYS else {*pair[0], *pair[1]}
            for key in sorted(keys):
                if pair[0].get(key) != pair[1].get(key):
                    differences[f"{name}.{key}"] = (pair[0].get(key), pair[1].get(key))
        else:
            differences[name] = pair
    return differences


def find_unknown(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Facts of MACHINE that only one of two records states: whether they agree nobody knows."""
    return [name for name in MACHINE if (name in before) != (name in now)]


def machine_facts(record: Record) -> dict[str, Any]:
    """Fact -> value of one record, for the facts of MACHINE that it states: independent of its point."""
    return {name: value for name, value in describe_fingerprint(record).items() if name in MACHINE}


def fingerprint_id(record: Record) -> str:
    """Digest, 12 hexadecimal digits, of a launch's machine, software and settings (MACHINE); independent of the point."""
    return hashlib.sha256(json.dumps(machine_facts(record), sort_keys=True).encode()).hexdigest()[:12]


def describe_script_revision(record: Record) -> str | None:
    """Which files of people's own training ran, `4f2c… with changes, files 93ab…`; None where nothing says it."""
    revision, is_dirty, digest = read_script_source(record)
    words = [f"{revision}{' with changes' if is_dirty else ''}"] if revision else []
    words += [f"files {digest}"] if digest else []
    return ", ".join(words) or None


def name_revision(record: Record) -> str | None:
    """The same in one word: `4f2c…+changes`, or else the digest of the files."""
    revision, is_dirty, digest = read_script_source(record)
    return f"{revision}{'+changes' if is_dirty else ''}" if revision else digest


def read_script_source(record: Record) -> tuple[str | None, bool, str | None]:
    """Revision, whether files differ from it, and the digest of the files of people's own training, as far as it is known."""
    facts = record.environment.get(SCRIPT_FACT)
    known = facts if isinstance(facts, Mapping) else {}
    revision, digest = (str(known[name])[:12] if known.get(name) else None for name in ("revision", "digest"))
    return revision, bool(known.get("is_dirty")), digest


def describe_own_source(record: Record) -> str | None:
    """Which hvbench ran a launch, `0.1.0 at 4f2c…, source 93ab…`; None where the record does not say it."""
    version, revision, digest = (record.environment.get(name) for name in OWN)
    if not digest:
        return None
    return f"{version} at {revision}, source {digest}" if revision else f"{version}, source {digest}"
