"""The varlink service."""
