"""The TensorFlow twin; this module has the facts about it that hvbench needs without importing it."""

from hvbench.registry import Framework, Kept, KeptBlock, Look

FRAMEWORK = Framework(
    title="TensorFlow",
    module="tensorflow",
    libraries=("tensorflow", "keras", "horovod.tensorflow", "horovod.keras"),
    distributions=("tensorflow-cpu", "tensorflow"),
    unneeded=("matplotlib", "pandas"),
    native_strategy="MultiWorkerMirroredStrategy",
    trace_seconds=3.0,
    compile_seconds=5.0,
    look=Look(
        colour="#0072B2", page_colour="#0072b2", dark_page_colour="#56b4e9", marker="s", marker_size=4, is_hollow=False,
        line="--", line_width=0.8,
    ),
    kept=Kept(
        blocks={
            "gpt2": KeptBlock(attention=(2, 5), mlp_input=(2, 1), mlp=(2, 1)),
            "llama": KeptBlock(attention=(2, 5), mlp_input=(2, 1), mlp=(4, 1)),
            "bert": KeptBlock(attention=(2, 5), mlp_input=(2, 1), mlp=(2, 1)),
        },
        attention_values=1, plain_values=15, mlp_values=3, holes=(0.0, 0.0),
        strip_rows=256, strip_values=5,
        dropout_values=0.5, dropout_attention_values=1.25,
        logits=2, chunk_logits=2, copies_clipped=True, copies_sums=True, average_copies=2, copies_parts=True,
        base_bytes=597 * 2**20, native_bytes=43 * 2**20, compiler_bytes=150 * 2**20, native_copies=10,
        feedback_copies={"topk": 1.25, "int8": 2.7, "powersgd": 1.0, "onebit": 2.0},
    ),
)  # fmt: skip
