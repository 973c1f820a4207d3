"""The API can be extended, and what extends it behaves like what was always there."""
