"""Services: what is run as a process (command line, worker, HTTP API)."""
