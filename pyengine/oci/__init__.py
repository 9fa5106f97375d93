"""OCI and Docker documents as typed structs: images, runtime configuration, digests, references."""
