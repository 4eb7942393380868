"""What lies on disk: images and labels in several formats, and measurements that survive an interruption."""
