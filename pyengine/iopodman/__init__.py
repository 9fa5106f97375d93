"""The io.podman operations as Python calls."""
