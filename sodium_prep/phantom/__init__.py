"""Digital heads with known truth: images, k-space and whole BIDS studies."""
