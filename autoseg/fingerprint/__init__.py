"""What the data is: sizes, spacings, intensities, structures and landmarks."""
