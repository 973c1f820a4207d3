"""Upgrades of a real cluster: one that succeeds, and five that do damage."""
