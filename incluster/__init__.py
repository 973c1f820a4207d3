"""Clusterproof inside a cluster: its image, the manifests of its jobs, and what shards do in their pods."""
