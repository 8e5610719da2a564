"""Grids, images, label maps and landmarks as pure numpy."""
