"""What `symlint diff` tells, for people and for machines."""
