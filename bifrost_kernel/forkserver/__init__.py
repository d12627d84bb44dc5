"""The fork server: warm kernels for executions; the control plane starts it with `python -m bifrost_kernel.forkserver`.

It runs where author code runs, and holds no key, no store and no workspace code.
"""
