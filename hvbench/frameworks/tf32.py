"""TF32 in one rank: whether its device can multiply in it. The same rule in every twin."""

from __future__ import annotations

from hvbench.spec.numerics import TF32_CAPABILITY


def require_tf32(device: str, *, capability: tuple[int, int] | None) -> None:
    """Raise RuntimeError unless `device` is a GPU of CUDA's compute `capability` (major, minor) 8.0 or later."""
    if device != "cuda":
        raise RuntimeError(f"precision tf32: the device of this rank is {device}, which does not multiply in TF32")
    if capability is not None and capability[0] < TF32_CAPABILITY:
        found = ".".join(map(str, capability))
        raise RuntimeError(
            f"precision tf32: this rank's GPU has compute capability {found}; TF32 begins with {TF32_CAPABILITY}.0"
        )
