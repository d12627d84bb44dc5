"""The command line `bifrost`: an HTTP client of the control plane, which imports nothing heavy."""
