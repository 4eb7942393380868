"""How sure a difference is: the jackknife over cases, and what cases that were not seen may add."""
