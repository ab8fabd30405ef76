"""Looking a collection over before anything learns from it: every image's measures, faults and copies."""
