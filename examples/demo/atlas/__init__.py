"""The demo's job: an atlas of the world's airports, a country at a time, from public data that PyPI ships."""
