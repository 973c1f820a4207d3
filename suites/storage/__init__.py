"""Volumes that are made when they are asked for, and what becomes of the data on them."""
