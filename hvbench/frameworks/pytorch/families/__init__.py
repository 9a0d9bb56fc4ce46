"""The families of transformers in PyTorch: a module each, with the same functions.

    embed         tokens [B, T] -> the residual stream [B, T, W]
    rotations     what positions turn queries and keys by, the same in all blocks; None: nothing
    norm          a norm of the residual stream [B, T, W] -> [B, T, W]
    pooled_norm   the mean over positions of that: what a classifier projects
    split_heads   the product of all queries, keys and values of a block -> each [B, H, T, Q], as they are attended with
    mlp           what comes behind a block's second norm [B, T, W] -> [B, T, W]

`starts` [B, T] of `hvbench.training.layout.Layout`, where rows hold documents, whose positions begin anew; else None.
"""

from types import ModuleType

from hvbench.frameworks.pytorch.families import gpt2, llama

FAMILIES: dict[str, ModuleType] = {"gpt2": gpt2, "llama": llama}
