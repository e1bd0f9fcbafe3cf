"""The pages of docs/reference, written from the code: `python -m shoal.commands.reference`, or `make reference`.

They are kept in the repository, so that they are read there as well as on the site; a test holds them to the code.
"""
