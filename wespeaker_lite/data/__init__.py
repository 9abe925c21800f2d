"""What training reads: crops, samplers, augmentation."""
