"""The PyTorch twin; this module has the facts about it that hvbench needs without importing it."""

from hvbench.registry import Framework, Kept, Look

FRAMEWORK = Framework(
    title="PyTorch",
    module="torch",
    libraries=("torch", "torchvision", "horovod.torch"),
    distributions=("torch",),
    native_strategy="DistributedDataParallel",
    draws_masks_in_order=True,
    compile_seconds=30.0,
    compiler_caches=("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"),
    look=Look(
        colour="#D55E00", page_colour="#c75300", dark_page_colour="#f0883e", marker="o", marker_size=7, is_hollow=True,
        line="-", line_width=1.4,
    ),
    kept=Kept(
        parameter_values=2, compute_values=15, attention_parameter_values=1, attention_compute_values=6, attention_values=1,
        strip_rows=0, strip_values=0, dropout_values=2, dropout_attention_values=3,
        logits=4, chunk_logits=1, copies_clipped=False, copies_sums=False,
        base_bytes=271 * 2**20, native_bytes=68 * 2**20, compiler_bytes=157 * 2**20, native_copies=0,  # DistributedDataParallel imports the compiler
    ),
)  # fmt: skip
