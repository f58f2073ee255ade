"""The Jupyter server's side: what is done where the kernel cannot reach. Knows jupyter_server's conventions; owns no process."""
