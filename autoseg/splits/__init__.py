"""Splits of a dataset into training and validation cases: folds, patients, nnU-Net's file."""
