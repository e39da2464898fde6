"""Training a compiled program: data, the loop, logs, checkpoints, sampling, baselines."""
