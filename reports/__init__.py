"""Readers of outcomes: each module turns a Run into one report format."""
