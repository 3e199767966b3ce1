"""Runtime: onnxruntime in a child process, which judges symmetries and repairs.

It may import `symlint.lint` and what stands before it.
"""
