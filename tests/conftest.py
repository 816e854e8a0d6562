"""Settings of all tests."""

from hypothesis import settings

# A time limit for an example would test how busy the machine is.
settings.register_profile("quantlab", deadline=None)
settings.load_profile("quantlab")
