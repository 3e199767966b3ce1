"""Pages: self-contained HTML for people, from templates beside this file; plots are inline SVG.

A page asks for nothing outside itself and can be read without its script. What comes from a model is text to it.
"""
