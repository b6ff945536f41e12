"""From configs to objects; with ``melprint.entry``, the only package that knows Hydra."""
