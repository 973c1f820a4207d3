"""Which pytest hooks clusterproof uses, and the one list that wires the rooms together."""
