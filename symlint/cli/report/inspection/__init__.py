"""What `symlint inspect` tells, in its formats."""
