"""The kernel, typed: mounts, namespaces, cgroups, capabilities, seccomp, id maps. Knows nothing of containers."""
