"""What is measured, beside the peers, as ratios of medians from one run. `./dev bench NAME`."""
