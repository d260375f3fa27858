"""Gunicorn's configuration for the shop with accelerator: the same, and two lines."""

import accelerator
from accelerator.demo.gunicorn_plain import *  # noqa: F403  (the same settings, whatever they are)

post_worker_init = accelerator.attach
child_exit = accelerator.on_child_exit
