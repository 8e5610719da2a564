"""Predictions against references: metrics, intervals and reports."""
