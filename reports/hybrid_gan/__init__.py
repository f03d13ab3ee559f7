"""hybrid-gan: classifiers and detectors of real and of GAN-perturbed images, trained on both."""
