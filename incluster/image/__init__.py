"""The image with the suites, made without Docker, and the Dockerfile that makes the same with it."""
