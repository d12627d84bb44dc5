"""Faces for people: clients of the control plane over HTTP, without store, key or author code."""
