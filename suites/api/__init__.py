"""What the API server itself promises about the objects it keeps."""
