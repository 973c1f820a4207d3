"""A node image for kind, made from the project's own programs: nothing is pulled from a registry."""
