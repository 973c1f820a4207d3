"""Resilience: what a part of the cluster is missed by while it is away, and how the cluster is well again after it."""
