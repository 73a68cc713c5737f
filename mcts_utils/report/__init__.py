"""What people look at: tables of a whole round."""
