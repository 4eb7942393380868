"""One network, three toolkits, argmax against RankSEG: the program behind ``make demo``."""
