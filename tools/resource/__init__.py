"""What `app new resource` writes: copies of the template's categories, with the names and fields of a new resource.

The `.txt` files are the categories' files as they stand in `app/`, which a test compares; they are here so that a
resource can be added where the example has been removed.
"""
