"""Whole files, strict records, tables, locks, workers, progress and the machine; knows no image."""
