"""Containers, images and what else a user of the library handles."""
