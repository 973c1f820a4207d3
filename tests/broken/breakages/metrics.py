"""Resource metrics that do not tell what happens."""
