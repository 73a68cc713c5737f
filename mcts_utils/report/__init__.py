"""Tables and figures over finished runs. Reports read files; they run no stage."""
