"""Tests of quantlab."""
