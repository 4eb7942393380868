"""One decision rule for the scores of a whole data set."""
