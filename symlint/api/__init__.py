"""Api: the commands as functions of Python, and the plug-in of pytest.

It may import every room. What is public of it is taken from `symlint` itself.
"""
