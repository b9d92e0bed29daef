"""Adapter kinds: the ways in which departments with systems of their own take part."""
