"""Scale: use is measured, and the number of pods follows it."""
