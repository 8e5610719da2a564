"""Rules for predictions that validation chooses: component rules and presence thresholds."""
