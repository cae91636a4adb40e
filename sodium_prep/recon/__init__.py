"""From k-space to images: readers, trajectories, operators, gridding, coils."""
