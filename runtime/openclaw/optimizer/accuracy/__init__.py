"""What the answers of a form may lose, and how far they are from the exported model's."""
