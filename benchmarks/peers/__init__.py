"""quantlab's calibration beside that of its peers, in one run; see ``__main__``."""
