"""The framework-independent parts of a training, with numpy only: text, batches, weights, schedule, loss scale, checkpoints."""
