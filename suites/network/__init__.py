"""Network: pods reach each other, Services find their pods, and visitors find the Services."""
