"""hvbench: the same transformer training in PyTorch and TensorFlow, measured side by side on Horovod."""

__version__ = "0.1.0"
