"""What the cluster's machines promise, seen from inside, and what its cloud says of them, seen in the API."""
