"""A trained model on images: the network's output, the sliding window, landmarks, label maps."""
