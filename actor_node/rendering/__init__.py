"""Films of trained teams: `film.py` makes them, `captions.py` draws their texts, `encoders.py` writes the files."""
