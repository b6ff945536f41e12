"""What the ``melprint`` command can be asked for."""
