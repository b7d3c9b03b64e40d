"""A user's own code as a zip named by its SHA-256 digest: packing, checking and loading it."""
