"""What several clusters promise together."""
