"""How fast it is, against the limits of the machine."""
