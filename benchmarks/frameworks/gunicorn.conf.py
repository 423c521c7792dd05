import os

bind = f"{os.environ['HOST']}:{os.environ['PORT']}"
workers = 1
loglevel = "warning"
control_socket_disable = True  # it would be left in the home folder
