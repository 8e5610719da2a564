"""A case on the plan's grid, and the exact way back to its own."""
