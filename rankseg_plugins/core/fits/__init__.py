"""What every fit to data needs: truth, a sample of the pixels, several processes, numbers that last."""
