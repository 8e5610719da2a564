"""What validation decides about predictions: component rules and presence thresholds."""
