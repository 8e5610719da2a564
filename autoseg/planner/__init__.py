"""From a fingerprint and a budget to a plan, one rule a file."""
