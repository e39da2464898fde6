"""What compiled programs need when they run, shared by all backends."""
