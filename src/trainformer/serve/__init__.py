"""A bundle as a service: HTTP, a bounded queue, batches by tokens, keys, metrics, watch, and the page."""
