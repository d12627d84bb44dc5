"""The control plane: the only process that opens the store or holds a key. Kernels, Lab and portal are its clients."""

__version__ = "0.1.0"
