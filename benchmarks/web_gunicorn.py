"""Gunicorn's settings for the benchmark: the one line that the package asks for."""

import accelerator

post_worker_init = accelerator.attach
