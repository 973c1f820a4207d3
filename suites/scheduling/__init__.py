"""Scheduling: which pod gets which node, and which has to wait."""
