"""Code bundles: a user's own code as a zip that is named by its SHA-256 digest.

Owns packing a folder, checking and unpacking an archive that nobody vouches for, and loading a task from it in a
process that serves no other bundle. Must not import the method nor anything outside ``clr``.
"""
