"""Translations: changes of some weights that others take back, or that nothing ever sees."""
