"""Generates the pages of docs/reference from the code: `python -m shoal.commands.reference`, or `make reference`.

The pages are stored in the repository, so that they can be read there and on the site. A test checks that they are
current.
"""
