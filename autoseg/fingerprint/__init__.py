"""Fingerprint of a dataset: sizes, spacings, intensities, structures and landmarks."""
