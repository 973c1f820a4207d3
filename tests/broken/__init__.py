"""The proof of the proof: one sound cluster, broken in one way at a time, and the promises that must notice it."""
