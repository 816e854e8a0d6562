"""Networks of the accuracy benchmark: trained once on CIFAR-10, and made hard; see README.md.

Nothing here needs quantlab.  ``train`` and the architectures need PyTorch; ``data``, ``sentences``
and ``harden`` do not.
"""
