"""Limits of time in tests, which are there for what hangs: on a busy machine everything takes many times as long."""

from __future__ import annotations

HANGS = 600.0  # seconds
