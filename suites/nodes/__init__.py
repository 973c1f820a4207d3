"""What the cluster's machines promise, seen from inside."""
