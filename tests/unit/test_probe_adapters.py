"""The probe's adapters with the real frameworks: a wrapped optimizer under Horovod and a GradScaler, Keras' fit, and, where installed, the Trainers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from hvbench import probe
from hvbench.errors import ProbeError
from hvbench.probe import Measured
from hvbench.probe.pytorch import wrap
from tests.unit.sample_probe import MakeFolder, folder, make_folder, run

__all__ = ["folder"]  # a fixture

# One rank of Horovod without a launcher, nor MPI.
ALONE = {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo", "HOROVOD_RANK": "0", "HOROVOD_SIZE": "1"}


class Optimizer:
    """What has a step."""

    def __init__(self) -> None:
        self.taken = 0

    def step(self, closure: object = None) -> object:
        self.taken += 1
        return closure


def test_a_wrapped_optimizer_is_the_one_that_it_was(folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(probe.VARIABLE, raising=False)
    optimizer = Optimizer()
    assert wrap(optimizer) is optimizer and vars(optimizer) == {"taken": 0}
    made = folder(warmup_steps=1, steps=2)
    assert wrap(optimizer, tokens_per_step=4) is optimizer
    with pytest.raises(Measured):
        for index in range(9):
            probe.current().log(loss=index)
            assert optimizer.step(index) == index
            with probe.current().paused():
                probe.current().evaluate(loss=9 - index)
    samples = made.result["samples"]
    assert (samples["loss"], samples["step_tokens"], samples["data_seconds"]) == ([0, 1, 2], [4] * 3, [0] * 3)
    assert [(one["step"], one["loss"]) for one in samples["evaluations"]] == [(1, 9), (2, 8), (3, 7)]
    assert optimizer.taken == 3


def test_an_evaluation_within_a_step_of_a_wrapped_optimizer_is_refused(folder: MakeFolder) -> None:
    folder()
    wrap(Optimizer())
    with pytest.raises(ProbeError, match=r"evaluate between steps, in `with training.paused\(\):`"):
        probe.current().evaluate(loss=1.0)


def test_pytorch_with_horovod_schedulers_and_a_scaler(tmp_path: Path) -> None:
    """Six updates, one of which the scaler skips; the loop has no line of the probe."""
    made = make_folder(tmp_path / "rank", warmup_steps=1, steps=5)
    done = run(
        made,
        """
        import copy, os, sys
        import torch, horovod.torch as hvd
        from torch.optim.lr_scheduler import StepLR
        import hvbench.probe.pytorch as adapter
        from hvbench import probe

        hvd.init()
        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        before = StepLR(optimizer, 1, gamma=0.5)
        assert adapter.wrap(optimizer, tokens_per_step=8, scaler=scaler) is optimizer
        after = StepLR(optimizer, 1, gamma=1.0)
        copy.deepcopy(optimizer.state_dict())
        other = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))])  # nobody times its steps
        other.param_groups[0]["params"][0].grad = torch.ones(1)
        index = 0
        while True:
            optimizer.zero_grad()
            loss = model(torch.ones(2, 3)).square().mean() * (float("inf") if index == 2 else 1.0)
            scaler.scale(loss).backward()
            optimizer.synchronize()
            with optimizer.skip_synchronize():
                scaler.step(optimizer)
            scaler.step(other)
            scaler.update()
            before.step(), after.step()
            index += 1
            print(index, scaler.get_scale(), optimizer.param_groups[0]["lr"], flush=True)
            if index == 1:
                class Watching(torch.optim.SGD):
                    def step(self, closure=None):
                        adapter._require_no_scaler(sys._getframe(1))
                watching, second = Watching([torch.nn.Parameter(torch.ones(1))], lr=1.0), torch.amp.GradScaler("cpu")
                second.scale(watching.param_groups[0]["params"][0].sum()).backward()
                try:
                    second.step(watching)
                except probe.ProbeError as error:
                    print(error, flush=True)
        """,
        where=tmp_path,
        **ALONE,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines.pop(1).startswith("a GradScaler calls optimizer.step(), and not for steps that it skips")
    assert lines == [
        "1 4.0 0.25", "2 4.0 0.125", "3 2.0 0.0625", "4 2.0 0.03125", "5 2.0 0.015625", "6 2.0 0.0078125",
    ]  # fmt: skip
    assert "lr_scheduler.step()" not in done.stderr, "PyTorch warns of a scheduler whose optimizer it does not see"
    samples = made.result["samples"]
    assert len(samples["step_seconds"]) == 6 and samples["step_tokens"] == [8] * 6
    assert {"torch", "horovod"} <= made.result["environment"]["framework_versions"].keys()


def test_fit_of_keras_under_horovod(tmp_path: Path) -> None:
    """Epochs of three batches, the last half as large, each validated; in the second `fit` Keras does not know how many will come."""
    made = make_folder(tmp_path / "rank", warmup_steps=2, steps=8, evaluate_every=1)
    done = run(
        made,
        """
        import os
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        import horovod.tensorflow.keras as hvd
        import atexit
        import keras, numpy as np, tensorflow as tf
        from hvbench.probe import device
        from hvbench.errors import ProbeError
        from hvbench.probe.keras import ProbeCallback, require_averaged

        hvd.init()
        atexit.register(lambda: print(device._tensorflow_has_gpu == bool(tf.config.get_visible_devices("GPU"))))

        class Average(keras.callbacks.Callback):  # Horovod 0.28's own does not know Keras 3
            def on_epoch_end(self, epoch, logs=None):
                logs |= {name: float(hvd.allreduce(value, name=name)) for name, value in sorted(logs.items())}

        x, y = np.arange(10.0)[:, None], np.zeros(10)
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
        optimizer = hvd.DistributedOptimizer(keras.optimizers.SGD(0.0))
        model.compile(optimizer=optimizer, loss="mse", metrics=["accuracy"])
        model.train_on_batch(x, y)  # on one rank nothing is averaged
        require_averaged(optimizer, ranks=1)
        require_averaged(keras.optimizers.SGD(0.0), ranks=2)
        try:
            require_averaged(optimizer, ranks=2)
        except ProbeError as error:
            print(str(error).partition(",")[0].replace(" ", "-"))
        model.reset_metrics()
        callbacks = [Average(), ProbeCallback(tokens_per_step=4)]
        ways = {"epochs": 2, "shuffle": False, "verbose": 0, "callbacks": callbacks, "validation_data": (x[:5], y[:5])}
        model.fit(x, y, batch_size=4, **ways)
        model.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(4).filter(lambda *_: True), **ways)
        raise SystemExit("not reached")
        """,
        where=tmp_path,
        **ALONE,
    )
    assert done.returncode == 0, done.stderr
    samples = made.result["samples"]
    batches = [(0 + 1 + 4 + 9) / 4, (16 + 25 + 36 + 49) / 4, (64 + 81) / 2]
    assert done.stdout.split() == ["hvd.DistributedOptimizer-has-averaged-no-gradients", "True"]
    assert samples["loss"] == pytest.approx([*batches, *batches, *batches, batches[0]], rel=1e-5)
    assert samples["step_tokens"] == [4] * 10
    assert [(one["step"], one["samples"]) for one in samples["evaluations"]] == [(3, 5), (6, 5), (9, 5)]
    assert [one["loss"] for one in samples["evaluations"]] == pytest.approx([30 / 5] * 3)
    assert all(one["seconds"] > 0 and one["accuracy"] is not None for one in samples["evaluations"])
    assert {"keras", "tensorflow", "horovod"} <= made.result["environment"]["framework_versions"].keys()


def test_the_trainer_of_hugging_face(tmp_path: Path) -> None:
    made = make_folder(tmp_path / "rank", warmup_steps=1, steps=3)
    done = run(
        made,
        """
        import torch
        from transformers import Trainer, TrainingArguments
        from hvbench.probe.huggingface import ProbeCallback

        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.ones(1))
            def forward(self, x, labels):
                loss = ((self.weight * x - labels) ** 2).mean()
                return {"loss": loss, "logits": self.weight * x}

        data = [{"x": torch.ones(1), "labels": torch.zeros(1)} for _ in range(12)]
        arguments = TrainingArguments(
            "out", per_device_train_batch_size=1, gradient_accumulation_steps=2, max_steps=6, logging_steps=1, eval_strategy="steps",
            eval_steps=2, save_strategy="steps", save_steps=2, report_to=[], disable_tqdm=True, use_cpu=True, learning_rate=0.0,
            remove_unused_columns=False,
        )
        trainer = Trainer(Model(), arguments, train_dataset=data, eval_dataset=data[:5], callbacks=[ProbeCallback(tokens_per_step=2)])
        trainer.train()
        raise SystemExit("not reached")
        """,
        where=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    samples = made.result["samples"]
    assert samples["loss"] == pytest.approx([1.0] * 4)
    assert all(norm is not None and math.isfinite(norm) for norm in samples["gradient_norm"])
    assert [(one["step"], one["samples"], one["loss"]) for one in samples["evaluations"]] == [(2, 5, 1.0), (4, 5, 1.0)]


def test_the_trainer_of_lightning(tmp_path: Path) -> None:
    made = make_folder(tmp_path / "rank", warmup_steps=1, steps=3)
    done = run(
        made,
        """
        import torch
        from lightning.pytorch import LightningModule, Trainer
        from hvbench.probe.lightning import ProbeCallback

        class Model(LightningModule):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.ones(1))
            def training_step(self, batch, index):
                return (self.weight * batch).square().mean()
            def validation_step(self, batch, index):
                self.log("val_loss", (self.weight * batch).square().mean())
            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.0)

        data = torch.utils.data.DataLoader(torch.ones(12, 1), batch_size=1)
        trainer = Trainer(
            accelerator="cpu", devices=1, max_steps=6, accumulate_grad_batches=2, val_check_interval=4, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, callbacks=[ProbeCallback(tokens_per_step=2)],
        )
        trainer.fit(Model(), data, data)
        raise SystemExit("not reached")
        """,
        where=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    samples = made.result["samples"]
    assert samples["loss"] == pytest.approx([1.0] * 4)
    assert [(one["step"], one["loss"]) for one in samples["evaluations"]] == [(2, 1.0), (4, 1.0)]
