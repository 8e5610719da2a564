"""Modules that several test files import; fixtures are in conftest.py."""
