"""A container engine that is a Python library."""
