"""Tests of the embedded cluster itself, and of clusters that others run: on real clusters, as root."""
