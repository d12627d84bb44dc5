"""The portal's own pages: plain handlers beside Voila's, so that a dead kernel never loses a page."""
