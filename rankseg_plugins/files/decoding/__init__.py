"""Labels written for images whose truth is not known, also for volumes that are larger than memory."""
