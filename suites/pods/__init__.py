"""Pods: what they are given, how they begin and end, and how they are reached."""
