"""Figures as ratios against peers that are measured in the same run: these machines are shared and noisy."""
