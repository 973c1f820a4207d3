"""The page people read, in a real browser."""
