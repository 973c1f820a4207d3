"""The suites inside a real cluster, from the image that is made without Docker."""
