"""The MLIR backend: whole chunk loops as native functions of one lane, compiled by the JIT of the torch-mlir wheel."""
