"""Generated Triton kernels on a GPU: right against the loop over ticks, then timed beside their peers."""
