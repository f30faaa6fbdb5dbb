"""The peers: each installed into an environment of its own, with its best documented settings."""
