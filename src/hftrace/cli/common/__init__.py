"""What several commands share: their options, what these mean, and how results and endings are printed."""
