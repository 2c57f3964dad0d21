"""The data plane of archives: dump, fingerprint, store, verify, restore; what the pod of a Job runs."""
