"""Chooses the fastest form of a model that stays within the accuracy budget, by measuring it here."""
