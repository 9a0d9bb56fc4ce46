"""The families of transformers in numpy: a module each, with the functions that the twins' have, and their gradients."""

from types import ModuleType

from hvbench.frameworks.numpy.families import bert, gpt2, llama

FAMILIES: dict[str, ModuleType] = {"gpt2": gpt2, "llama": llama, "bert": bert}
