"""Change: by how much weights differ, and what a repair explains of it."""
