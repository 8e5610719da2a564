"""A training seen from outside: what to do, what it may spend, its curve and what it left."""
