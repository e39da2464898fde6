"""Code generators. Each sees only the IR and the shared base, never another backend."""
