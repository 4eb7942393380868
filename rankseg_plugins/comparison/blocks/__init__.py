"""What a comparison can be asked for besides scores of counts: extra scores, groups, presence, and expectation."""
