"""Secrets: the contract, and the local implementation that keeps sealed values in the store."""
