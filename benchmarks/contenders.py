"""What `benchmarks/peers.py` can train, by name: an implementation, and perhaps one setting that is not its usual one.

`huggingface+compile` is Hugging Face's GPT-2 with torch.compile. Nothing here imports a framework.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from hvbench.errors import UsageError
from hvbench.plan.skip import why_no_compiler
from hvbench.records.environment import multiplies_natively


@dataclass(frozen=True, kw_only=True)
class Implementation:
    """A GPT-2 in training, and where it is."""

    module: str
    cls: str
    needs: tuple[str, ...]  # modules that it imports
    loads: tuple[str, ...]  # modules whose memory is no model's: imported before what a model takes is counted


# Imported in a process of their own only.
IMPLEMENTATIONS = {
    "pytorch": Implementation(
        module="benchmarks.twins", cls="PyTorchTwin", needs=("torch",), loads=("hvbench.frameworks.pytorch.trainer",)
    ),
    "huggingface": Implementation(
        module="benchmarks.peers_pytorch", cls="HuggingFace", needs=("torch", "transformers"),
        loads=("torch._dynamo", "torch.optim", "transformers.models.gpt2.modeling_gpt2"),
    ),
    "plain-torch": Implementation(
        module="benchmarks.peers_pytorch", cls="PlainTorch", needs=("torch",), loads=("torch._dynamo", "torch.optim")
    ),
    "tensorflow": Implementation(
        module="benchmarks.twins", cls="TensorFlowTwin", needs=("tensorflow",), loads=("hvbench.frameworks.tensorflow.trainer",)
    ),
    "keras-hub": Implementation(
        module="benchmarks.peers_tensorflow", cls="KerasHub", needs=("tensorflow", "keras_hub"), loads=("benchmarks.peers_tensorflow",)
    ),
}  # fmt: skip
OF_PYTORCH = ("pytorch", "huggingface", "plain-torch")
OF_TENSORFLOW = ("tensorflow", "keras-hub")
TWINS = ("pytorch", "tensorflow")
PEERS = ("huggingface", "plain-torch", "keras-hub")  # the implementations here set the allocator themselves


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A setting that a contender has and others of its implementation have not."""

    meaning: str
    of: tuple[str, ...]
    knobs: Mapping[str, str] = field(default_factory=dict)  # of the point
    variables: Mapping[str, str] = field(default_factory=dict)  # of the environment
    keeps_freed_memory: bool = True
    modules: Mapping[str, str] = field(default_factory=dict)  # implementation -> where its class `Floor` is, instead
    impossible: Callable[[str, str], str | None] = lambda implementation, precision: None  # why not, in a precision


def _has_no_fp32_products(implementation: str, precision: str) -> str | None:
    return None if precision == "fp32" else "gemm=onednn is a choice of PyTorch's fp32 products"


def _emulates(implementation: str, precision: str) -> str | None:
    if implementation != "pytorch" or precision != "bf16" or multiplies_natively("bfloat16", device="cpu"):
        return None
    return "a compiler takes out the roundings by which the implementation here emulates bf16 on this processor"


VARIANTS = {
    "onednn": Variant(
        meaning="its fp32 products by oneDNN instead of MKL",
        of=("pytorch",),
        knobs=MappingProxyType({"gemm": "onednn"}),
        impossible=_has_no_fp32_products,
    ),
    "compile": Variant(
        meaning="torch.compile",
        of=OF_PYTORCH,
        knobs=MappingProxyType({"compile": "default"}),
        impossible=_emulates,
    ),
    "xla": Variant(
        meaning="graphs clustered and compiled by XLA",
        of=OF_TENSORFLOW,
        variables=MappingProxyType({"TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit"}),
    ),
    "malloc": Variant(
        meaning="the allocator of the C library as it is: freed memory goes back", of=PEERS, keeps_freed_memory=False
    ),
    "floor": Variant(
        meaning="no training: the products and the attention of its step alone",
        of=TWINS,
        modules=MappingProxyType({name: f"benchmarks.floor_{name}" for name in TWINS}),
    ),
    "again": Variant(meaning="the same once more: what it differs by is chance", of=tuple(IMPLEMENTATIONS)),
}
PLAIN = Variant(meaning="as it is", of=tuple(IMPLEMENTATIONS))


@dataclass(frozen=True, kw_only=True)
class Contender:
    """An implementation with one of its variants."""

    name: str
    implementation: Implementation
    variant: Variant

    @property
    def base(self) -> str:
        """The name of its implementation."""
        return self.name.partition("+")[0]

    @property
    def place(self) -> tuple[str, str]:
        """Module and name of the class that trains."""
        module = self.variant.modules.get(self.base)
        return (module, "Floor") if module else (self.implementation.module, self.implementation.cls)

    def why_missing(self) -> str | None:
        """What this machine lacks for it; None: nothing."""
        if missing := [each for each in self.implementation.needs if importlib.util.find_spec(each) is None]:
            return f"needs {missing[0]}: pip install '.[peers]' (benchmarks/README.md has how)"
        return why_no_compiler("pytorch", "cpu") if "compile" in self.variant.knobs else None


def parse_contender(name: str) -> Contender:
    """The contender of that name; UsageError, with what is allowed, for any other."""
    base, _, suffix = name.partition("+")
    implementation, variant = IMPLEMENTATIONS.get(base), VARIANTS.get(suffix, PLAIN if name == base else None)
    if implementation is None or variant is None or base not in variant.of:
        raise UsageError(f"unknown contender {name}; allowed: {', '.join(all_names())}")
    return Contender(name=name, implementation=implementation, variant=variant)


def all_names() -> list[str]:
    """Every contender that there is."""
    return [*IMPLEMENTATIONS, *(f"{base}+{suffix}" for suffix, variant in VARIANTS.items() for base in variant.of)]
