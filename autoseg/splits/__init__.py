"""Which cases train and which validate: folds, patients, nnU-Net's file."""
