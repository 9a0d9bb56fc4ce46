"""The PyTorch twin; this module has the facts about it that hvbench needs without importing it."""

from hvbench.registry import Framework, Kept, KeptBlock, Look

FRAMEWORK = Framework(
    title="PyTorch",
    module="torch",
    libraries=("torch", "torchvision", "horovod.torch"),
    distributions=("torch",),
    native_strategy="DistributedDataParallel",
    native_shards={"optimizer": "ZeroRedundancyOptimizer"},
    draws_masks_in_order=True,
    compile_seconds=30.0,
    compiler_caches=("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"),
    look=Look(
        colour="#D55E00", page_colour="#c75300", dark_page_colour="#f0883e", marker="o", marker_size=7, is_hollow=True,
        line="-", line_width=1.4,
    ),
    kept=Kept(
        blocks={
            "gpt2": KeptBlock(attention=(1, 5), mlp_input=(1, 1), mlp=(0, 2)),
            "llama": KeptBlock(attention=(2, 8), mlp_input=(2, 1), mlp=(3, 1)),
            "bert": KeptBlock(attention=(1, 5), mlp_input=(1, 1), mlp=(0, 2)),
        },
        attention_values=1, plain_values=7, mlp_values=2, holes=(0.35, 0.6),
        strip_rows=0, strip_values=0, dropout_values=2, dropout_attention_values=3,
        logits=4, chunk_logits=1, copies_clipped=False, copies_sums=False, average_copies=1, copies_parts=False,
        base_bytes=271 * 2**20, native_bytes=68 * 2**20, compiler_bytes=157 * 2**20, native_copies=0,  # DistributedDataParallel imports the compiler
    ),
)  # fmt: skip
