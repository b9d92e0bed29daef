"""Everything that crosses a service boundary, and nothing else.

Events and their envelope, topics, HTTP shapes, error codes, identifiers and the catalogue (law as data).
This package imports nothing else of ours.
"""
