"""Clusters from kind, k3d or minikube, through pytest-kubernetes."""
