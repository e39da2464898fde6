"""Whole programs as modules of IREE: forward, one tick, gradients and a training step, for CPUs and GPUs."""
