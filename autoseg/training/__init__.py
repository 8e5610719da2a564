"""Training: the loop, one step, sampling, augmentation, losses, rollback, checkpoints."""
