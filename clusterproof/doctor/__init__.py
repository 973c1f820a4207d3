"""`clusterproof doctor`: what is in the way of a run, told before it."""
