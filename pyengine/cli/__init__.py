"""The command line: the verbs people know from podman."""
