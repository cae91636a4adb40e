"""The bundled template and atlas, and atlases that a user brings."""
