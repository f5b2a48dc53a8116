"""What tests of several directories share: real processes, origins, waiting for events."""
