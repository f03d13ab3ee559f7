"""The document signs-adversarial: two attacks on a traffic-sign network, before and after adversarial training."""
