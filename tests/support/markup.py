"""A text that no page may take for a part of itself."""

NASTY = "<script>alert('&amp;')</script> \"dogs\" $title"
