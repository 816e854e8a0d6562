"""Settings of all tests."""

from hypothesis import settings

# A time limit for an example would test how busy the machine is.  Half the usual 100 examples keep
# the whole suite under ten minutes; a law that needs more says so itself.
settings.register_profile("quantlab", deadline=None, max_examples=50)
settings.load_profile("quantlab")
