"""The families of transformers in PyTorch: a module each, with the same functions.

    embed         tokens [B, T] -> the residual stream [B, T, W]
    rotations     what positions turn queries and keys by, the same in all blocks; None: nothing
    norm          a norm of the residual stream [B, T, W] -> [B, T, W]
    finish        the residual stream behind the last block [B, T, W] -> what the output projection multiplies [B, T, W]
    pool          the same, padding left out -> what a classifier projects [B, W]
    split_heads   the product of all queries, keys and values of a block -> each [B, H, T, Q], as they are attended with
    mlp           a block's second half, without its norm [B, T, W] -> [B, T, W]

Where a block has its norms is said in `hvbench.spec.model`.

`starts` [B, T] of `hvbench.training.layout.Layout`, where rows hold documents, whose positions begin anew; else None.
"""

from types import ModuleType

from hvbench.frameworks.pytorch.families import bert, gpt2, llama

FAMILIES: dict[str, ModuleType] = {"gpt2": gpt2, "llama": llama, "bert": bert}
