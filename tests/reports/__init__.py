"""The reports, without a cluster."""
