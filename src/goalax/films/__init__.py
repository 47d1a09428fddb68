"""What a policy looks like: scenes, pictures, pages."""
