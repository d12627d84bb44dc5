"""The HTTP API of the control plane: it authenticates, reads requests, asks the floors below, and answers."""
