"""Gunicorn's configuration for the shop without accelerator."""

worker_class = "gthread"
workers = 4
threads = 4
keepalive = 30
loglevel = "warning"

# The demo stops the server itself and needs no second way in.
control_socket_disable = True
