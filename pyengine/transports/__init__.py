"""Where images come from and go to: docker-archive, oci-archive, oci, dir, registry."""
