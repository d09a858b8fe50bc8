"""Doing the work: pretraining and scoring brought up to date, plans, speed, and the pages of a run."""
