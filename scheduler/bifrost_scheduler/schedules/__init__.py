"""Schedules: when they are due, what becomes of each due time, who they act for, and the clock that looks."""
